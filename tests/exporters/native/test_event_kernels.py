"""EventLinear in ONNX Runtime against plain numpy, on every instruction set that this machine has."""

from __future__ import annotations

import numpy as np
import pytest
from event_weights import NAMES, Weights, event_session, inputs, product
from one_node import refused

from exporters.formats.catalog import format_named
from exporters.formats.event import EventFormat


def close(y: np.ndarray, x: np.ndarray, w: np.ndarray) -> None:
    """y = x w^T to float32's rounding, judged against the terms summed: codes and zeros, of the size of w's largest."""
    allowed = 1e-6 * np.abs(x).astype(np.float64).sum(-1, keepdims=True) * np.abs(w).max()
    assert y.shape == (*x.shape[:-1], len(w))
    assert (np.abs(y - x.astype(np.float64) @ w.T) <= allowed).all()


def by_hand() -> Weights:
    """w = [[0.5, 0], [-1, 1.5]]: outputs 0 and 1 are the lowest nibbles of words 0 and 1; codes less 8, scale 0.5."""
    weights = Weights(2, 2, "int4-g16")
    weights.packed["codes"][:] = 0
    weights.packed["codes"][:, [0, 4]] = [[9, 6], [8, 11]]
    weights.packed["scales"][:] = 0.5
    return weights


@pytest.mark.parametrize(
    ("x", "y"),
    [([0, 0], [0, 0]), ([2, 0], [1, -2]), ([0, 1], [0, 1.5]), ([3, 3], [1.5, 1.5]), ([2, -4], [1, -8]),
     ([-0.0, 4], [0, 6])],
    ids=str,
)  # fmt: skip
def test_by_hand(isa, x, y):
    assert product(np.array([x], np.float32), by_hand()).tolist() == [y]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_reaches_every_output(isa, value):
    """As in a dense product; inf times a weight of zero is not a number. Other tokens stay as they are."""
    y = product(np.array([[value, 0], [0, 2], [value, value]], np.float32), by_hand())
    np.testing.assert_array_equal(y[0], [0.5 * value, -value])
    np.testing.assert_array_equal(y[1], [0, 3])
    assert np.isnan(y[2, 0])  # 0.5 inf + 0 inf


def test_activations_of_eight_bits_by_hand(isa):
    """max |x| = 127 makes the step 1: 0.5 rounds to 0, 1.5 to 2, as in QLinear."""
    weights = by_hand()
    y = product(np.array([[127, 0.5], [1.5, 127]], np.float32), weights, activation_bits=8)
    assert y.tolist() == [[63.5, -127], [1, 188.5]]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["spikes", "ternary", "real"])
def test_every_width(isa, name, kind):
    for N, K in [(5, 7), (300, 129), (513, 300), (64, 700)]:
        weights = Weights(N, K, name)
        run = event_session(weights)
        for tokens, active in [(1, 0), (1, 0.1), (3, 0.5), (1, 1), (9, 0.2), (33, 1)]:
            x = inputs(kind, active, 1, tokens, K)
            close(run.run(None, {"x": x})[0], x, weights.w)


@pytest.mark.parametrize("name", ["int2-g64", "int4-g128", "int8"])
def test_spikes_are_added_exactly(isa, name):
    """Spikes of one: sums of codes are integers, whatever the order; equal scales make the result exact."""
    weights = Weights(96, 700, name)
    weights.packed["scales"][:] = 1
    centre = 2 ** (weights.attributes["bits"] - 1)
    fmt = format_named(f"event/{name}")
    assert isinstance(fmt, EventFormat)
    codes = Weights(96, 700, name)
    scales = np.repeat(codes.packed["scales"].astype(np.float64).T, weights.attributes["group"], 1)[:, :700]
    w = np.rint(codes.w / scales)
    assert np.abs(w).max() <= centre
    x = (inputs("spikes", 0.6, 1, 700) != 0).astype(np.float32)
    np.testing.assert_array_equal(product(x, weights), x @ w.T)


@pytest.mark.parametrize("shape", [(0,), (1, 0), (3,), (2, 2, 2), ()], ids=str)
def test_any_rank(isa, shape):
    weights = Weights(6, 64, "int4-g32")
    x = inputs("real", 0.4, *shape, 64)
    close(product(x, weights), x, weights.w)


@pytest.mark.parametrize("active", [0.2, 1])
@pytest.mark.parametrize("tokens", [1, 3, 40])
def test_threads_change_nothing(isa, tokens, active):
    weights = Weights(2100, 600, "int4-g64")
    x = inputs("real", active, tokens, 600)
    np.testing.assert_array_equal(product(x, weights, threads=2), product(x, weights))


def test_a_call_leaves_nothing_behind(isa):
    weights = Weights(300, 320, "uint4-g64")
    run = event_session(weights)
    for tokens in (1, 16):
        spoilt = np.full((tokens, 320), np.nan, np.float32)
        assert np.isnan(run.run(None, {"x": spoilt})[0]).all()
        x = inputs("real", 0.5, tokens, 320)
        close(run.run(None, {"x": x})[0], x, weights.w)


def test_weights_may_come_at_run_time(isa):
    weights = Weights(40, 64, "uint3-g32")
    x = inputs("real", 0.5, 2, 64)
    y = event_session(weights, constant=False).run(None, {"x": x, **weights.packed})[0]
    close(y, x, weights.w)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"bits": 7}, "bits = 7"), ({"bits": 1}, "bits = 1"), ({"N": 33}, "'codes' is .* expected"),
     ({"bits": 5}, "'codes' is|'high' is missing"), ({"group": 0}, "group = 0"), ({"group": 64}, "'scales' is"),
     ({"K": 0}, "K = 0"), ({"K": 63}, "'codes' is"), ({"N": -1}, "N = -1"), ({"N": 7}, "'scales' is"),
     ({"N": 2**40}, "N = "), ({"activation_bits": 4}, "activation_bits = 4")],
    ids=str,
)  # fmt: skip
def test_bad_attributes_are_refused(changed, message):
    weights = Weights(6, 64, "int4-g32")
    refused(message, lambda: product(np.zeros((1, 64), np.float32), weights, **changed))


def test_bad_packed_tensors_and_inputs_are_refused():
    for name in ("codes", "scales", "high", "zeros"):
        weights = Weights(6, 64, "uint3-g32")
        weights.packed[name] = weights.packed[name][..., :5]
        refused(f"'{name}' is .* expected", lambda w=weights: product(np.zeros((1, 64), np.float32), w))
    weights = Weights(6, 64, "int4-g32")
    refused("'x' is .* expected", lambda: product(np.zeros((1, 63), np.float32), weights))
    weights.packed["high"] = np.zeros((64, 4), np.uint8)
    refused("'high' is for", lambda: product(np.zeros((1, 64), np.float32), weights))
