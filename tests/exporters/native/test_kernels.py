"""The native operators in ONNX Runtime against plain numpy, on every instruction set that this machine has."""

from __future__ import annotations

import ctypes

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.artifact.errors import NotAvailable
from exporters.artifact.native_library import library, library_path
from exporters.formats.tiles import tiled_tensors
from exporters.ops.signatures import DOMAIN

try:
    LIBRARY = str(library_path())
except NotAvailable as missing:
    pytest.skip(str(missing), allow_module_level=True)

CODE_BITS = {1: (1, 0), 2: (2, 0), 3: (2, 1), 4: (4, 0), 5: (4, 1), 6: (4, 2), 8: (8, 0)}
BITS = tuple(CODE_BITS)


def levels() -> list[int]:
    library().slmc_force_isa(-1)
    return list(range(library().slmc_isa_level() + 1))


@pytest.fixture(params=levels(), ids=lambda level: f"isa{level}")
def isa(request):
    """Runs a test once per instruction set."""
    library().slmc_force_isa(request.param)
    yield request.param
    library().slmc_force_isa(-1)


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes [..., n] as bytes [..., n * bits / 8], least significant bits first."""
    spread = (codes[..., None] >> np.arange(bits)) & 1
    return np.packbits(spread.reshape(*codes.shape[:-1], -1).astype(np.uint8), axis=-1, bitorder="little")


class Weights:
    """A random quantised matrix: its packed tensors as stored, and w as float64."""

    def __init__(self, rng, N: int, K: int, bits: int, group: int, zeros: bool):
        groups = -(-K // group)
        codes = rng.integers(0, 2**bits, (N, groups, group))
        low, high = CODE_BITS[bits]
        self.attributes = {"K": K, "N": N, "bits": bits, "group": group}
        self.packed = {"codes": pack(codes & (2**low - 1), low)}
        self.packed["scales"] = (rng.uniform(0.01, 1, (N, groups)) * rng.choice([-1, 1], (N, groups))).astype(
            np.float16
        )
        if high:
            self.packed["high"] = pack(codes >> low, high)
        offsets = np.full((N, groups), 2 ** (bits - 1))
        if zeros:
            offsets = rng.integers(0, 2**bits, (N, groups))
            self.packed["zeros"] = offsets.astype(np.uint8)
        grouped = (codes - offsets[..., None]) * self.packed["scales"].astype(np.float64)[..., None]
        self.w = grouped.reshape(N, -1)[:, :K]


def quantised(x: np.ndarray, group: int) -> np.ndarray:
    """x [..., K] rounded as activation_bits = 8 does: 127 steps of max |x| per 128 inputs of a group."""
    out = np.zeros(x.shape, np.float64)
    K = x.shape[-1]
    for start in range(0, K, group):
        for k in range(start, min(start + group, K), 128):
            end = min(k + 128, start + group, K)
            block = x[..., k:end]
            largest = np.abs(block).max(-1, keepdims=True).astype(np.float32)
            inverse = np.where(largest > 0, np.float32(127) / np.where(largest > 0, largest, 1), 0).astype(np.float32)
            steps = np.rint(block * inverse)
            out[..., k:end] = steps.astype(np.float64) * (largest / np.float32(127))
    return out


def session(
    operator: str,
    inputs: dict[str, np.ndarray | None],
    constants: dict[str, np.ndarray],
    order: list[str],
    outputs: list[str],
    threads: int = 1,
    **attributes,
) -> ort.InferenceSession:
    """A model of one node. `order` names its inputs; those in neither mapping are left out."""
    known = {**inputs, **constants}
    names = [name if name in known else "" for name in order]
    while names and not names[-1]:
        names.pop()
    node = helper.make_node(operator, names, outputs, domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim)
            for n, a in inputs.items()
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)], ir_version=9
    )
    return opened(model, threads)


def opened(model: onnx.ModelProto, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(LIBRARY)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


LINEAR_INPUTS = ["x", "codes", "scales", "high", "zeros"]
EMBEDDING_INPUTS = ["tokens", *LINEAR_INPUTS[1:]]


@pytest.fixture(params=[0, 16], ids=["rows", "tiles"])
def tile(request):
    """Runs a test once per layout of the packed tensors."""
    return request.param


def qlinear(x: np.ndarray, weights: Weights, tile: int = 0, threads: int = 1, **attributes) -> np.ndarray:
    """With the packed tensors in tiles, if asked for and if their groups fill whole words."""
    attributes |= weights.attributes | {"tile": tile if weights.attributes["group"] % 32 == 0 else 0}
    packed = tiled_tensors(weights.packed) if attributes["tile"] else weights.packed
    model = session("QLinear", {"x": x}, packed, LINEAR_INPUTS, ["y"], threads, **attributes)
    return model.run(None, {"x": x})[0]


def close(actual: np.ndarray, x: np.ndarray, w: np.ndarray) -> None:
    """y = x w^T to float32's rounding, judged against the size of the terms summed."""
    expected = np.asarray(x, np.float64) @ w.T
    allowed = 4e-6 * (np.abs(x).astype(np.float64) @ np.abs(w).T) + 1e-6
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    assert (np.abs(actual - expected) <= allowed).all(), np.abs((actual - expected) / allowed).max()


# By hand first.


def test_qlinear_of_four_bits_by_hand(isa):
    """K = 3 of a group of 32: codes 9, 8, 6 are +1, 0, -2; times the scale 0.5."""
    codes = np.zeros((1, 1, 16), np.uint8)
    codes[0, 0, :2] = [9 | 8 << 4, 6]
    scales = np.array([[0.5]], np.float16)
    x = np.array([[[2, 100, 4]]], np.float32)
    model = session(
        "QLinear", {"x": x}, {"codes": codes, "scales": scales}, LINEAR_INPUTS, ["y"], K=3, N=1, bits=4, group=32
    )
    assert model.run(None, {"x": x})[0].tolist() == [[[2 * 0.5 + 0 - 4 * 1.0]]]


def test_qlinear_of_three_bits_with_zeros_by_hand(isa):
    """Codes 7 and 4 are 3 + 4 and 0 + 4 in the two packed tensors; minus zero 5 they are +2 and -1."""
    codes, high = np.zeros((1, 1, 8), np.uint8), np.zeros((1, 1, 4), np.uint8)
    codes[0, 0, 0], high[0, 0, 0] = 0b0011, 0b11
    packed = {
        "codes": codes,
        "scales": np.array([[0.25]], np.float16),
        "high": high,
        "zeros": np.array([[5]], np.uint8),
    }
    x = np.array([[8, 4]], np.float32)
    model = session("QLinear", {"x": x}, packed, LINEAR_INPUTS, ["y"], K=2, N=1, bits=3, group=32)
    assert model.run(None, {"x": x})[0].tolist() == [[8 * 0.5 - 4 * 0.25]]


def test_activations_of_eight_bits_by_hand(isa):
    """max |x| = 127 makes the step 1: 0.5 and 1.5 both round to even, 0 and 2."""
    codes = np.full((1, 1, 16), 0x99, np.uint8)
    x = np.array([[127, 0.5, 1.5, -3]], np.float32)
    model = session(
        "QLinear", {"x": x}, {"codes": codes, "scales": np.ones((1, 1), np.float16)}, LINEAR_INPUTS, ["y"],
        K=4, N=1, bits=4, group=32, activation_bits=8,
    )  # fmt: skip
    assert model.run(None, {"x": x})[0].tolist() == [[127 + 0 + 2 - 3]]


def test_embeddings_by_hand():
    tokens = np.array([[1, 0]], np.int64)
    codes = np.array([[0b101], [0b010]], np.uint8)
    model = session("SignEmbedding", {"tokens": tokens}, {"codes": codes}, ["tokens", "codes"], ["y"], K=3, N=2)
    assert model.run(None, {"tokens": tokens})[0].tolist() == [[[-1, 1, -1], [1, -1, 1]]]
    packed = {"codes": np.array([[[3, 0]], [[2 | 1 << 2, 0]]], np.uint8), "scales": np.array([[2], [4]], np.float16)}
    model = session("QEmbedding", {"tokens": tokens}, packed, EMBEDDING_INPUTS, ["y"], K=2, N=2, bits=2, group=8)
    assert model.run(None, {"tokens": tokens})[0].tolist() == [[[0, -4], [2, -4]]]


def test_lif_by_hand():
    """tau 2, threshold 1, reset 0: 0 + 1.5 / 2 rests, 0.75 + (1.5 - 0.75) / 2 = 1.125 fires and resets."""
    drive = np.array([1.5, 1.5, 0.5], np.float32).reshape(1, 3, 1)
    membrane = np.zeros((1, 1), np.float32)
    inputs = {"drive": drive, "membrane": membrane}
    model = session("Lif", inputs, {}, list(inputs), ["spikes", "membrane_out"], tau=2.0, threshold=1.0, reset=0.0)
    spikes, after = model.run(None, inputs)
    assert spikes.ravel().tolist() == [0, 1, 0]
    assert after.tolist() == [[0.25]]


# Then at random, over all that a signature allows.


@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "zeros"])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("activation_bits", [32, 8])
def test_qlinear_of_every_width(isa, tile, bits, zeros, activation_bits):
    rng = np.random.default_rng(bits)
    for N, K, group in [
        (5, 40, 32),
        (64, 256, 32),
        (33, 300, 64),
        (48, 512, 128),
        (7, 1000, 1024),
        (19, 200, 96),
        (50, 130, 32),
        (31, 704, 320),
        (3, 77, 8),
    ]:
        weights = Weights(rng, N, K, bits, group, zeros)
        for tokens in (1, 2, 7, 33):
            x = rng.standard_normal((1, tokens, K)).astype(np.float32)
            seen = quantised(x, group) if activation_bits == 8 else x
            close(qlinear(x, weights, tile, activation_bits=activation_bits), seen, weights.w)


@pytest.mark.parametrize("activation_bits", [32, 8])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_qlinear_with_one_scale_per_row(isa, tile, bits, activation_bits):
    rng = np.random.default_rng(bits)
    for N, K in [(40, 160), (17, 1100), (4, 31)]:
        group = -(-K // 32) * 32
        weights = Weights(rng, N, K, bits, group, False)
        for tokens in (1, 3, 40):
            x = rng.standard_normal((tokens, K)).astype(np.float32)
            seen = quantised(x, group) if activation_bits == 8 else x
            close(qlinear(x, weights, tile, activation_bits=activation_bits), seen, weights.w)


@pytest.mark.parametrize("shape", [(0,), (1, 0), (3,), (2, 2, 2), ()], ids=str)
def test_qlinear_takes_any_rank(isa, tile, shape):
    rng = np.random.default_rng(0)
    weights = Weights(rng, 6, 64, 4, 32, False)
    x = rng.standard_normal((*shape, 64)).astype(np.float32)
    close(qlinear(x, weights, tile), x, weights.w)


def test_wide_activations_keep_their_scale(isa, tile):
    """All-zero inputs, and groups a million times larger than others."""
    rng = np.random.default_rng(0)
    weights = Weights(rng, 8, 256, 4, 64, True)
    x = rng.standard_normal((3, 256)).astype(np.float32)
    x[:, 64:128] *= 1e6
    x[1] = 0
    close(qlinear(x, weights, tile, activation_bits=8), quantised(x, 64), weights.w)


@pytest.mark.parametrize("bits", [4, 8])
def test_extreme_codes_do_not_overflow(isa, tile, bits):
    """Largest code times largest activation in every place."""
    weights = Weights(np.random.default_rng(0), 32, 512, bits, 128, False)
    weights.packed["codes"][:] = 255
    weights.packed["scales"][:] = 1
    weights.w[:] = 2**bits - 1 - 2 ** (bits - 1)
    x = np.full((9, 512), 3, np.float32)
    for activation_bits in (8, 32):
        close(qlinear(x, weights, tile, activation_bits=activation_bits), x, weights.w)
        close(qlinear(x[:1], weights, tile, activation_bits=activation_bits), x[:1], weights.w)


@pytest.mark.parametrize("activation_bits", [32, 8])
def test_a_call_leaves_nothing_behind(isa, tile, activation_bits):
    """Memory is kept from call to call: what is not a number must not reach the next one."""
    rng = np.random.default_rng(0)
    large = Weights(rng, 64, 1024, 4, 32, True)
    for tokens in (1, 16):
        spoilt = np.full((tokens, 1024), np.nan, np.float32)
        assert np.isnan(qlinear(spoilt, large, tile, activation_bits=activation_bits)).all()
        for bits in (2, 3, 4, 5, 6, 8):
            weights = Weights(rng, 3, 160, bits, 32, bits % 2 == 0)
            x = rng.standard_normal((tokens, 160)).astype(np.float32)
            seen = quantised(x, 32) if activation_bits == 8 else x
            close(qlinear(x, weights, tile, activation_bits=activation_bits), seen, weights.w)


@pytest.mark.parametrize("tokens", [1, 3, 64])
@pytest.mark.parametrize("activation_bits", [32, 8])
def test_threads_change_nothing(isa, tile, tokens, activation_bits):
    rng = np.random.default_rng(0)
    weights = Weights(rng, 1030, 1024, 4, 64, False)
    x = rng.standard_normal((tokens, 1024)).astype(np.float32)
    alone = qlinear(x, weights, tile, threads=1, activation_bits=activation_bits)
    np.testing.assert_array_equal(qlinear(x, weights, tile, threads=2, activation_bits=activation_bits), alone)


@pytest.mark.parametrize("activation_bits", [32, 8])
@pytest.mark.parametrize("bits", [4, 3])
def test_every_row_of_every_quarter(isa, tile, bits, activation_bits):
    """Four rows are read at once, a quarter of the rows apart: none to spare, one to three, many per quarter."""
    rng = np.random.default_rng(bits)
    for N in (1, 2, 3, 4, 5, 6, 7, 8, 127, 129, 134, 259):
        weights = Weights(rng, N, 96, bits, 32, N % 2 == 0)
        for tokens in (1, 3):
            x = rng.standard_normal((tokens, 96)).astype(np.float32)
            seen = quantised(x, 32) if activation_bits == 8 else x
            close(qlinear(x, weights, tile, activation_bits=activation_bits), seen, weights.w)


def test_weights_may_come_at_run_time(isa):
    rng = np.random.default_rng(0)
    weights = Weights(rng, 6, 64, 3, 32, True)
    x = rng.standard_normal((2, 64)).astype(np.float32)
    inputs = {"x": x, **weights.packed}
    model = session("QLinear", inputs, {}, LINEAR_INPUTS, ["y"], **weights.attributes)
    close(model.run(None, inputs)[0], x, weights.w)


@pytest.mark.parametrize("tokens", [0, 1, 2, 7, 33])
def test_half_linear(isa, tokens):
    rng = np.random.default_rng(tokens)
    for N, K in [(1, 1), (5, 40), (33, 300), (70, 513)]:
        w = rng.standard_normal((N, K)).astype(np.float16)
        w[0, 0] = 6e-8  # subnormal
        x = rng.standard_normal((1, tokens, K)).astype(np.float32)
        model = session("HalfLinear", {"x": x}, {"w": w}, ["x", "w"], ["y"])
        close(model.run(None, {"x": x})[0], x, w.astype(np.float64))


@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "zeros"])
@pytest.mark.parametrize("bits", BITS)
def test_qembedding(bits, zeros):
    rng = np.random.default_rng(bits)
    for N, K, group in [(9, 40, 32), (4, 77, 8), (5, 300, 320), (3, 300, 64)]:
        weights = Weights(rng, N, K, bits, group, zeros)
        for tokens in (rng.integers(0, N, (1, 7)), np.zeros((1, 0), np.int64), np.array(N - 1)):
            model = session(
                "QEmbedding", {"tokens": tokens}, weights.packed, EMBEDDING_INPUTS, ["y"], **weights.attributes
            )
            np.testing.assert_array_equal(model.run(None, {"tokens": tokens})[0], weights.w[tokens].astype(np.float32))


def test_lif_and_wkv_follow_their_equations():
    rng = np.random.default_rng(0)
    T, C = 23, 37
    drive, membrane = rng.normal(0.6, 1, (1, T, C)).astype(np.float32), rng.normal(0, 0.3, (1, C)).astype(np.float32)
    inputs = {"drive": drive, "membrane": membrane}
    model = session("Lif", inputs, {}, list(inputs), ["spikes", "membrane_out"], tau=2.0, threshold=1.0, reset=0.0)
    spikes, after = model.run(None, inputs)
    v = membrane[0].copy()
    for t in range(T):
        u = v + (drive[0, t] - v) / np.float32(2)
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
    drive, membrane = np.zeros((1, 0, 5), np.float32), np.ones((1, 5), np.float32)
    inputs = {"drive": drive, "membrane": membrane}
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


# What must be refused, with a reason and without a crash.


def refused(message: str, make) -> None:
    with pytest.raises(Exception, match=message) as caught:
        make()
    assert type(caught.value).__module__.startswith("onnxruntime")


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
    model = session("QEmbedding", {"tokens": tokens}, weights.packed, EMBEDDING_INPUTS, ["y"], **weights.attributes)
    refused(f"token {token} is not in 0 .. 5", lambda: model.run(None, {"tokens": tokens}))
    signs = session(
        "SignEmbedding", {"tokens": tokens}, {"codes": np.zeros((6, 1), np.uint8)}, ["tokens", "codes"], ["y"], K=8, N=6
    )
    refused(f"token {token} is not in 0 .. 5", lambda: signs.run(None, {"tokens": tokens}))


def test_bad_recurrences_are_refused():
    inputs = {"drive": np.zeros((1, 2, 5), np.float32), "membrane": np.zeros((1, 4), np.float32)}
    attributes = {"tau": 2.0, "threshold": 1.0, "reset": 0.0}
    outputs = ["spikes", "membrane_out"]
    model = session("Lif", inputs, {}, list(inputs), outputs, **attributes)
    refused("'drive' is", lambda: model.run(None, inputs))
    refused("'membrane' is", lambda: model.run(None, inputs | {"membrane": np.zeros((2, 5), np.float32)}))
    refused("tau", lambda: session("Lif", inputs, {}, list(inputs), outputs, **attributes | {"tau": 0.0}))
    names = ["decay", "first", "key", "value", "numerator", "denominator", "exponent"]
    shapes = [(4,), (4,), (1, 2, 4), (1, 2, 4), (1, 4), (1, 4), (1, 4)]
    inputs = {n: np.ones(s, np.float32) for n, s in zip(names, shapes, strict=True)}
    model = session("Wkv", inputs, {}, names, ["y", "numerator_out", "denominator_out", "exponent_out"])
    for name in ("first", "key", "value", "numerator", "exponent"):
        wrong = inputs | {name: np.ones((*inputs[name].shape[:-1], 3), np.float32)}
        refused(f"'{name}' is", lambda wrong=wrong: model.run(None, wrong))


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
    x86, arm = [b"portable", b"avx2", b"avx2-vnni", b"avx512"], [b"portable", b"neon", b"neon-dotprod"]
    assert names in (x86[: len(names)], arm[: len(names)])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [2, 33])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("bits", BITS)
def test_what_has_no_step_of_eight_bits_reaches_the_outputs(isa, bits, zeros, count, value):
    """One token's infinity or NaN makes all its outputs NaN; the other tokens keep theirs."""
    weights = Weights(np.random.default_rng(0), 9, 256, bits, 64, zeros)
    x = np.ones((count, 256), np.float32)
    usual = qlinear(x, weights, activation_bits=8)
    x[1, 37] = value
    y = qlinear(x, weights, activation_bits=8)
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(np.delete(y, 1, 0), np.delete(usual, 1, 0))


@pytest.mark.parametrize("count", [1, 33])
def test_what_is_too_small_for_eight_bits(isa, count):
    """127 / 1e-38 is above float32's largest number: such a block is 0."""
    x = np.full((count, 256), 1e-38, np.float32)
    weights = Weights(np.random.default_rng(0), 9, 256, 4, 64, True)
    assert not qlinear(x, weights, activation_bits=8).any()
