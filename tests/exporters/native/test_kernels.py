"""Embeddings and recurrences in ONNX Runtime against plain numpy, and what the library tells."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from kernel_weights import BITS, EMBEDDING_INPUTS, Weights
from one_node import opened, session
from onnx import TensorProto, helper, numpy_helper

from exporters.artifact.native_library import library
from exporters.ops.signatures import DOMAIN


def test_embeddings_by_hand():
    tokens = np.array([[1, 0]], np.int64)
    codes = np.array([[0b101], [0b010]], np.uint8)
    model = session("SignEmbedding", {"tokens": tokens}, {"codes": codes}, ["tokens", "codes"], K=3, N=2)
    assert model.run(None, {"tokens": tokens})[0].tolist() == [[[-1, 1, -1], [1, -1, 1]]]
    packed = {"codes": np.array([[[3, 0]], [[2 | 1 << 2, 0]]], np.uint8), "scales": np.array([[2], [4]], np.float16)}
    model = session("QEmbedding", {"tokens": tokens}, packed, EMBEDDING_INPUTS, K=2, N=2, bits=2, group=8)
    assert model.run(None, {"tokens": tokens})[0].tolist() == [[[0, -4], [2, -4]]]


def test_lif_by_hand():
    """tau 2, threshold 1, reset 0: 0 + 1.5 / 2 rests, 0.75 + (1.5 - 0.75) / 2 = 1.125 fires and resets."""
    current = np.array([1.5, 1.5, 0.5], np.float32).reshape(1, 3, 1)
    membrane = np.zeros((1, 1), np.float32)
    inputs = {"current": current, "membrane": membrane}
    model = session("Lif", inputs, {}, list(inputs), ["spikes", "membrane_out"], tau=2.0, threshold=1.0, reset=0.0)
    spikes, after = model.run(None, inputs)
    assert spikes.ravel().tolist() == [0, 1, 0]
    assert after.tolist() == [[0.25]]


@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "zeros"])
@pytest.mark.parametrize("bits", BITS)
def test_qembedding(bits, zeros):
    rng = np.random.default_rng(bits)
    for N, K, group in [(9, 40, 32), (4, 77, 8), (5, 300, 320), (3, 300, 64)]:
        weights = Weights(rng, N, K, bits, group, zeros)
        for tokens in (rng.integers(0, N, (1, 7)), np.zeros((1, 0), np.int64), np.array(N - 1)):
            model = session("QEmbedding", {"tokens": tokens}, weights.packed, EMBEDDING_INPUTS, **weights.attributes)
            np.testing.assert_array_equal(model.run(None, {"tokens": tokens})[0], weights.w[tokens].astype(np.float32))


def test_lif_and_wkv_follow_their_equations():
    rng = np.random.default_rng(0)
    T, C = 23, 37
    current, membrane = rng.normal(0.6, 1, (1, T, C)).astype(np.float32), rng.normal(0, 0.3, (1, C)).astype(np.float32)
    inputs = {"current": current, "membrane": membrane}
    model = session("Lif", inputs, {}, list(inputs), ["spikes", "membrane_out"], tau=2.0, threshold=1.0, reset=0.0)
    spikes, after = model.run(None, inputs)
    v = membrane[0].copy()
    for t in range(T):
        u = v + (current[0, t] - v) / np.float32(2)
        np.testing.assert_array_equal(spikes[0, t], u >= 1)
        v = np.where(u >= 1, np.float32(0), u)
    np.testing.assert_array_equal(after[0], v)

    names = ["decay", "first", "key", "value", "numerator", "denominator", "exponent"]
    arrays = [-rng.uniform(0.1, 2, C), rng.normal(0, 1, C), rng.normal(0, 2, (1, T, C)), rng.normal(0, 1, (1, T, C))]
    arrays += [np.zeros((1, C)), np.zeros((1, C)), np.full((1, C), -1e38)]
    inputs = dict(zip(names, (a.astype(np.float32) for a in arrays), strict=True))
    model = session("Wkv", inputs, {}, names, ["y", "numerator_out", "denominator_out", "exponent_out"])
    y, *states = model.run(None, inputs)
    decay, first, key, value = (inputs[n].astype(np.float64) for n in names[:4])
    past_value, past = np.zeros(C), np.zeros(C)
    for t in range(T):
        now = np.exp(first + key[0, t])
        np.testing.assert_allclose(y[0, t], (past_value + now * value[0, t]) / (past + now), rtol=2e-5, atol=1e-6)
        past_value = np.exp(decay) * past_value + np.exp(key[0, t]) * value[0, t]
        past = np.exp(decay) * past + np.exp(key[0, t])
    np.testing.assert_allclose(states[1][0] * np.exp(states[2][0].astype(np.float64)), past, rtol=1e-5)

    # the same sequence in two calls
    cut = 9
    head = model.run(None, inputs | {n: inputs[n][:, :cut] for n in ("key", "value")})
    tail = model.run(
        None, inputs | {n: inputs[n][:, cut:] for n in ("key", "value")} | dict(zip(names[4:], head[1:], strict=True))
    )
    np.testing.assert_array_equal(np.concatenate([head[0], tail[0]], 1), y)
    for end, whole in zip(tail[1:], states, strict=True):
        np.testing.assert_array_equal(end, whole)


def test_recurrences_take_an_empty_sequence():
    current, membrane = np.zeros((1, 0, 5), np.float32), np.ones((1, 5), np.float32)
    inputs = {"current": current, "membrane": membrane}
    model = session("Lif", inputs, {}, list(inputs), ["spikes", "membrane_out"], tau=2.0, threshold=1.0, reset=0.0)
    spikes, after = model.run(None, inputs)
    assert spikes.shape == (1, 0, 5)
    assert after.tolist() == membrane.tolist()


def test_symbolic_sizes_are_inferred():
    weights = Weights(np.random.default_rng(0), 6, 64, 4, 32, False)
    nodes = [
        helper.make_node("QEmbedding", ["tokens", "codes", "scales"], ["x"], domain=DOMAIN, **weights.attributes),
        helper.make_node("QLinear", ["x", "codes", "scales"], ["y"], domain=DOMAIN, **weights.attributes),
        helper.make_node("Lif", ["y", "v"], ["s", "v_out"], domain=DOMAIN, tau=2.0, threshold=1.0, reset=0.0),
    ]
    graph = helper.make_graph(
        nodes,
        "three",
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "T"]),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, 6]),
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("s", "v_out")],
        [numpy_helper.from_array(a, n) for n, a in weights.packed.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)], ir_version=9
    )
    shapes = {o.name: o.shape for o in opened(model).get_outputs()}
    assert shapes == {"s": [1, "T", 6], "v_out": [1, 6]}


def test_the_instruction_set_is_told():
    library().slmc_isa_name.restype = ctypes.c_char_p
    library().slmc_force_isa(99)
    names = []
    for level in range(library().slmc_isa_level() + 1):
        library().slmc_force_isa(level)
        assert library().slmc_isa_level() == level
        names.append(library().slmc_isa_name())
    library().slmc_force_isa(-1)
    assert library().slmc_isa_level() == len(names) - 1
    x86, arm = [b"portable", b"avx2", b"avx2-vnni", b"avx512", b"avx512-amx"], [b"portable", b"neon", b"neon-dotprod"]
    assert names in (x86[: len(names)], arm[: len(names)])
