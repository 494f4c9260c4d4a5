"""The native SparseLinear on every instruction set of this machine, against numpy on what the format decodes to."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.artifact.errors import NotAvailable
from exporters.artifact.native_library import library, library_path
from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from exporters.formats.float4 import Float4Format
from exporters.formats.nm import NmFormat
from exporters.formats.sparse_tiles import in_tiles, out_of_tiles, sparse_tile_of
from exporters.formats.units import padded_columns
from exporters.ops.signatures import DOMAIN

try:
    LIBRARY = str(library_path())
except NotAvailable as missing:
    pytest.skip(str(missing), allow_module_level=True)

ORDER = ["x", "codes", "scales", "high", "patterns"]
NAMES = ("2:4/int4-g64", "2:4/int4-g128", "1:4/int8", "3:4/int6-g32", "3:4/int4", "4:8/int4-g128", "4:8/int8-g16",
         "4:8/int8-g64", "6:8/int4-g64", "6:8/int4-g256", "1:8/int8", "1:8/int4-g64", "2:8/int4-g128", "3:8/int4-g64",
         "5:8/int8-g64", "7:8/int4-g128", "4:8x16/int3-g64", "2:8x16/int2-g128", "8:16x16/int5-g64", "6:8x16/int6",
         "7:8/int3-g256", "5:8/int2-g16", "3:8/int4-g32", "4:8x16/int4-g64", "4:8x16/int4-g32", "2:4x16/int8",
         "6:8x16/int4-g128", "1:8x16/int8-g16", "1:16/int4", "3:16/int4-g32", "8:16/int4-g64", "4:16x16/int6-g16",
         "8:16x16/int4-g16", "15:16/int2", "6:8/fp4-g16", "4:8x16/fp4-g32", "fp4-g16", "fp4-g32")  # fmt: skip


def levels() -> list[int]:
    library().slmc_force_isa(-1)
    return list(range(library().slmc_isa_level() + 1))


@pytest.fixture(params=levels(), ids=lambda level: f"isa{level}")
def isa(request):
    """Runs a test once per instruction set."""
    library().slmc_force_isa(request.param)
    yield request.param
    library().slmc_force_isa(-1)


class Weights:
    """A matrix as a graph holds it, in tiles where it can be: packed tensors, attributes, and w as float64."""

    def __init__(self, name: str, N: int, K: int, tiles: bool = True):
        fmt = format_named(name)
        assert isinstance(fmt, NmFormat | Float4Format)
        weight = np.random.default_rng(N * K).standard_normal((N, K)).astype(np.float32)
        encoded = fmt.encode(weight)
        self.w = fmt.values_of(encoded).astype(np.float64)  # the exponent is a node of its own
        sparse = isinstance(fmt, NmFormat)
        tile = sparse_tile_of(fmt, N, K) if tiles and isinstance(fmt, NmFormat) else 0
        self.packed = in_tiles(fmt, encoded.packed) if tile and isinstance(fmt, NmFormat) else dict(encoded.packed)
        self.attributes = {
            "K": K, "N": N, "bits": fmt.bits, "group": fmt.group or padded_columns(K),
            "kept": fmt.kept if sparse else 8, "period": fmt.period if sparse else 8,
            "pattern_rows": fmt.pattern_rows if sparse else 1,
            "float4": int(isinstance(fmt.values if sparse else fmt, Float4Format)), "tile": tile,
        }  # fmt: skip


def session(inputs: dict[str, np.ndarray], constants: dict[str, np.ndarray], threads: int = 1, **attributes):
    known = {**inputs, **constants}
    names = [name if name in known else "" for name in ORDER]
    node = helper.make_node("SparseLinear", names, ["y"], domain=DOMAIN, **attributes)
    kinds = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in inputs.items()}
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(n, kinds[n], [None] * a.ndim) for n, a in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    return opened(helper.make_model(graph, opset_imports=opsets, ir_version=9), threads)


def opened(model: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(LIBRARY)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def product(x: np.ndarray, weights: Weights, threads: int = 1, **attributes) -> np.ndarray:
    model = session({"x": x}, weights.packed, threads, **weights.attributes, **attributes)
    return model.run(None, {"x": x})[0]


def rounded(x: np.ndarray, group: int) -> np.ndarray:
    """x [..., K] as activation_bits = 8 reads it: 127 steps of max |x| per 128 inputs, or smaller group."""
    out = np.zeros(x.shape, np.float64)
    block = min(group, 128)
    for k in range(0, x.shape[-1], block):
        part = x[..., k : k + block]
        largest = np.abs(part).max(-1, keepdims=True)
        inverse = np.where(largest > 0, np.float32(127) / np.where(largest > 0, largest, 1), np.float32(0))
        out[..., k : k + block] = np.rint(part * inverse).astype(np.float64) * (largest / np.float32(127))
    return out


def close(actual: np.ndarray, x: np.ndarray, w: np.ndarray) -> None:
    """y = x w^T to float32's rounding, judged against the size of the terms summed."""
    expected = np.asarray(x, np.float64) @ w.T
    allowed = 4e-6 * (np.abs(x).astype(np.float64) @ np.abs(w).T) + 1e-6
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    assert (np.abs(actual - expected) <= allowed).all(), np.abs((actual - expected) / allowed).max()


@pytest.mark.parametrize("activation_bits", [32, 8])
def test_two_of_four_by_hand(isa, activation_bits):
    """Places 1 and 3 (mask 10, rank 4) have codes 9 and 6 less 8, scale 0.5; 127 / 127 makes x's step 1."""
    codes, patterns = np.full((1, 32), 0x88, np.uint8), np.zeros((1, 12), np.uint8)
    codes[0, :2], patterns[0, 0] = [0x89, 0x86], 4
    x = np.array([[127, 3, 50, -2]], np.float32)
    packed = {"codes": codes, "patterns": patterns, "scales": np.array([[0.5]], np.float16)}
    model = session(
        {"x": x}, packed, K=4, N=1, bits=4, group=128, kept=2, period=4, pattern_rows=1, float4=0,
        activation_bits=activation_bits,
    )  # fmt: skip
    assert model.run(None, {"x": x})[0].tolist() == [[3 * 0.5 + -2 * -1.0]]


@pytest.mark.parametrize("tiles", [True, False], ids=["tiles", "units"])
@pytest.mark.parametrize("activation_bits", [32, 8])
@pytest.mark.parametrize("name", NAMES)
def test_every_format(isa, name, activation_bits, tiles):
    rng = np.random.default_rng(0)
    for N, K in [(1, 1), (5, 70), (64, 256), (33, 300), (18, 1000), (112, 384)]:
        weights = Weights(name, N, K, tiles)
        if tiles and not weights.attributes["tile"]:
            continue
        for tokens in (1, 3, 8, 33):
            x = rng.standard_normal((1, tokens, K)).astype(np.float32)
            seen = rounded(x, weights.attributes["group"]) if activation_bits == 8 else x
            close(product(x, weights, activation_bits=activation_bits), seen, weights.w)


@pytest.mark.parametrize("shape", [(0,), (1, 0), (3,), (2, 2, 2), ()], ids=str)
def test_any_rank(isa, shape):
    weights = Weights("2:4/int4-g64", 6, 70)
    x = np.random.default_rng(0).standard_normal((*shape, 70)).astype(np.float32)
    close(product(x, weights), x, weights.w)


@pytest.mark.parametrize("name", ["2:4/int4-g64", "4:8x16/int4-g64", "6:8/int8", "fp4-g16"])
def test_extreme_codes_do_not_overflow(isa, name):
    weights = Weights(name, 32, 512)
    for tensor in ("codes", "high"):
        if tensor in weights.packed:
            weights.packed[tensor] = np.full_like(weights.packed[tensor], 0x77 if name == "fp4-g16" else 0xFF)
    weights.packed["scales"][:] = 1  # every sum is exact
    fmt = format_named(name)
    packed = out_of_tiles(fmt, weights.packed) if weights.attributes["tile"] else weights.packed
    weights.w = fmt.decode(Encoded(name, (32, 512), packed)).astype(np.float64)
    x = np.full((9, 512), 3, np.float32)
    for activation_bits in (8, 32):
        close(product(x, weights, activation_bits=activation_bits), x, weights.w)
        close(product(x[:1], weights, activation_bits=activation_bits), x[:1], weights.w)


@pytest.mark.parametrize("tokens", [1, 3, 64])
@pytest.mark.parametrize("activation_bits", [32, 8])
@pytest.mark.parametrize("name", ["2:4/int4-g64", "4:8x16/int4-g64"])
def test_threads_change_nothing(isa, name, tokens, activation_bits):
    weights = Weights(name, 1030, 1024)
    x = np.random.default_rng(0).standard_normal((tokens, 1024)).astype(np.float32)
    alone = product(x, weights, threads=1, activation_bits=activation_bits)
    np.testing.assert_array_equal(product(x, weights, threads=2, activation_bits=activation_bits), alone)


def test_a_call_leaves_nothing_behind(isa):
    """Memory is kept from call to call: what is not a number must not reach the next one."""
    large, small = Weights("4:8x16/int4-g64", 64, 1024), Weights("2:4/int4-g64", 3, 160)
    for tokens in (1, 16):
        product(np.full((tokens, 1024), np.nan, np.float32), large, activation_bits=8)
        x = np.random.default_rng(0).standard_normal((tokens, 160)).astype(np.float32)
        close(product(x, small, activation_bits=8), rounded(x, 64), small.w)


def test_weights_may_come_at_run_time(isa):
    weights = Weights("5:8/int3-g32", 6, 70)
    x = np.random.default_rng(0).standard_normal((2, 70)).astype(np.float32)
    inputs = {"x": x, **weights.packed}
    close(session(inputs, {}, **weights.attributes).run(None, inputs)[0], x, weights.w)


@pytest.mark.parametrize("name", ["2:4/int4-g64", "4:16/int4-g64", "4:8x16/int8", "8:16/int5"])
def test_packed_tensors_of_any_bytes_are_read_within_bounds(isa, name):
    """Fields that stand for nothing, masks with too many or too few bits: a number comes out, and no crash."""
    weights, rng = Weights(name, 19, 300), np.random.default_rng(0)
    for _ in range(4):
        for tensor in ("codes", "patterns", "high"):
            if tensor in weights.packed:
                shape = weights.packed[tensor].shape
                weights.packed[tensor] = rng.integers(0, 256, shape, dtype=np.uint8)
        for tokens in (1, 9):
            for activation_bits in (8, 32):
                x = rng.standard_normal((tokens, 300)).astype(np.float32)
                assert np.isfinite(product(x, weights, activation_bits=activation_bits)).all()


def refused(message: str, make) -> None:
    with pytest.raises(Exception, match=message) as caught:
        make()
    assert type(caught.value).__module__.startswith("onnxruntime")


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"bits": 7}, "bits = 7"), ({"bits": 1}, "bits = 1"), ({"bits": 8}, "'codes' is .* expected"),
     ({"bits": 5}, "'high' is missing"), ({"group": 48}, "group = 48"), ({"group": 0}, "group = 0"),
     ({"group": 8}, "group = 8"), ({"group": 192}, "group = 192"), ({"group": 128}, "'scales' is .* expected"),
     ({"K": 0}, "K = 0"), ({"K": 129}, "expected"), ({"N": -1}, "N = -1"), ({"N": 7}, "'codes' is .* expected"),
     ({"kept": 0}, "kept = 0"), ({"kept": 5}, "kept = 5"), ({"kept": 1}, "expected"), ({"period": 5}, "period = 5"),
     ({"kept": 4}, "expected"), ({"pattern_rows": 2}, "pattern_rows = 2"),
     ({"pattern_rows": 16}, "'patterns' is .* expected"), ({"float4": 2}, "float4 = 2"),
     ({"float4": 1, "bits": 2}, "float4 = 1"), ({"activation_bits": 4}, "activation_bits = 4"),
     ({"tile": 8}, "tile = 8"), ({"tile": 16}, "tile = 16 is for 16 rows or more")],
    ids=str,
)  # fmt: skip
def test_bad_attributes_are_refused(changed, message):
    weights = Weights("2:4/int4-g64", 6, 70)
    weights.attributes |= changed
    refused(message, lambda: product(np.zeros((1, weights.attributes["K"]), np.float32), weights))


@pytest.mark.parametrize(
    ("name", "changed"),
    [("2:4/int4-g32", {}), ("2:4/int3-g64", {}), ("4:16/int4-g64", {}), ("fp4-g32", {}), ("6:8/fp4-g32", {}),
     ("4:8x16/int4-g32", {}), ("3:8x16/int4-g64", {}), ("4:8x16/int4-g256", {}), ("2:4/int4-g64", {"kept": 4})],
    ids=str,
)  # fmt: skip
def test_tiles_are_for_matrices_that_fill_their_words(name, changed):
    weights = Weights(name, 32, 384)
    weights.attributes |= {"tile": 16, **changed}
    refused("tile = 16 is for", lambda: product(np.zeros((1, 384), np.float32), weights))


def test_bad_inputs_are_refused():
    for name in ("codes", "scales", "patterns"):
        weights = Weights("2:4/int4-g64", 6, 70)
        weights.packed[name] = weights.packed[name][:5]
        refused(f"'{name}' is .* expected", lambda w=weights: product(np.zeros((1, 70), np.float32), w))
    weights = Weights("2:4/int4-g64", 6, 70)
    weights.packed["high"] = np.zeros((6, 4), np.uint8)
    refused("'high' is not for this matrix", lambda: product(np.zeros((1, 70), np.float32), weights))
    weights = Weights("2:4/int4-g64", 6, 70)
    refused("'x' is .* expected", lambda: product(np.zeros((1, 71), np.float32), weights))
    del weights.packed["patterns"]
    refused("'patterns' is missing", lambda: product(np.zeros((1, 70), np.float32), weights))
    del weights.attributes["kept"]
    refused("kept", lambda: product(np.zeros((1, 70), np.float32), weights))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [2, 33])
@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_step_of_eight_bits_reaches_the_outputs(isa, name, count, value):
    """One token's infinity or NaN makes all its outputs NaN; the other tokens keep theirs."""
    weights = Weights(name, 9, 256)
    x = np.ones((count, 256), np.float32)
    usual = product(x, weights, activation_bits=8)
    x[1, 37] = value
    y = product(x, weights, activation_bits=8)
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(np.delete(y, 1, 0), np.delete(usual, 1, 0))


@pytest.mark.parametrize("count", [2, 33])
def test_what_is_too_small_for_eight_bits(isa, count):
    """127 / 1e-38 is above float32's largest number: such a block is 0."""
    x = np.full((count, 256), 1e-38, np.float32)
    weights = Weights(NAMES[0], 9, 256)
    assert not product(x, weights, activation_bits=8).any()
