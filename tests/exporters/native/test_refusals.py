"""What the operators must refuse, with a reason and without a crash."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_weights import EMBEDDING_INPUTS, Weights, qlinear
from one_node import refused, session


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bits": 7}, "bits = 7"),
        ({"bits": 0}, "bits = 0"),
        ({"bits": 2}, "'codes' is .* expected"),
        ({"bits": 5}, "'high' is missing"),
        ({"group": 12}, "group = 12"),
        ({"group": 0}, "group = 0"),
        ({"group": 64}, "expected"),
        ({"K": 0}, "K = 0"),
        ({"N": -1}, "N = -1"),
        ({"N": 7}, "'codes' is .* expected"),
        ({"activation_bits": 4}, "activation_bits = 4"),
    ],
    ids=str,
)
def test_bad_attributes_are_refused(changed, message):
    weights = Weights(np.random.default_rng(0), 6, 64, 4, 32, False)
    weights.attributes |= changed
    refused(message, lambda: qlinear(np.zeros((1, 64), np.float32), weights))


def test_a_missing_attribute_is_refused():
    weights = Weights(np.random.default_rng(0), 6, 64, 4, 32, False)
    del weights.attributes["bits"]
    refused("bits", lambda: qlinear(np.zeros((1, 64), np.float32), weights))


def test_bad_packed_tensors_are_refused():
    for name in ("scales", "zeros", "high"):
        weights = Weights(np.random.default_rng(0), 6, 64, 3, 32, True)
        weights.packed[name] = weights.packed[name][:5]
        refused(f"'{name}' is .* expected", lambda w=weights: qlinear(np.zeros((1, 64), np.float32), w))
    weights = Weights(np.random.default_rng(0), 6, 64, 4, 32, False)
    weights.packed["high"] = np.zeros((6, 2, 4), np.uint8)
    refused("'high' is for", lambda: qlinear(np.zeros((1, 64), np.float32), weights))


def test_bad_activations_are_refused():
    weights = Weights(np.random.default_rng(0), 6, 64, 4, 32, False)
    refused("'x' is .* expected", lambda: qlinear(np.zeros((1, 63), np.float32), weights))
    model = session(
        "HalfLinear", {"x": np.zeros((1, 1), np.float32)}, {"w": np.zeros((3, 4), np.float16)}, ["x", "w"], ["y"]
    )
    refused("'x' is .* expected", lambda: model.run(None, {"x": np.zeros((1, 5), np.float32)}))


@pytest.mark.parametrize("token", [-1, 6, 2**40])
def test_tokens_out_of_range_are_refused(token):
    weights = Weights(np.random.default_rng(0), 6, 64, 4, 32, False)
    tokens = np.array([[0, token]], np.int64)
    model = session("QEmbedding", {"tokens": tokens}, weights.packed, EMBEDDING_INPUTS, **weights.attributes)
    refused(f"token {token} is not in 0 .. 5", lambda: model.run(None, {"tokens": tokens}))
    signs = session(
        "SignEmbedding", {"tokens": tokens}, {"codes": np.zeros((6, 1), np.uint8)}, ["tokens", "codes"], K=8, N=6
    )
    refused(f"token {token} is not in 0 .. 5", lambda: signs.run(None, {"tokens": tokens}))


def test_bad_recurrences_are_refused():
    inputs = {"current": np.zeros((1, 2, 5), np.float32), "membrane": np.zeros((1, 4), np.float32)}
    attributes = {"tau": 2.0, "threshold": 1.0, "reset": 0.0}
    outputs = ["spikes", "membrane_out"]
    model = session("Lif", inputs, {}, list(inputs), outputs, **attributes)
    refused("'current' is", lambda: model.run(None, inputs))
    refused("'membrane' is", lambda: model.run(None, inputs | {"membrane": np.zeros((2, 5), np.float32)}))
    refused("tau", lambda: session("Lif", inputs, {}, list(inputs), outputs, **attributes | {"tau": 0.0}))
    names = ["decay", "first", "key", "value", "numerator", "denominator", "exponent"]
    shapes = [(4,), (4,), (1, 2, 4), (1, 2, 4), (1, 4), (1, 4), (1, 4)]
    inputs = {n: np.ones(s, np.float32) for n, s in zip(names, shapes, strict=True)}
    model = session("Wkv", inputs, {}, names, ["y", "numerator_out", "denominator_out", "exponent_out"])
    for name in ("first", "key", "value", "numerator", "exponent"):
        wrong = inputs | {name: np.ones((*inputs[name].shape[:-1], 3), np.float32)}
        refused(f"'{name}' is", lambda wrong=wrong: model.run(None, wrong))
