"""SparseLinear on every instruction set of this machine, against numpy on what the format decodes to."""

from __future__ import annotations

import numpy as np
import pytest
from one_node import close, refused, session
from rounding import rounded
from sparse_weights import NAMES, ORDER, Weights, product

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from exporters.formats.sparse_tiles import out_of_tiles
from exporters.formats.tiles import row_tensors


@pytest.mark.parametrize("activation_bits", [32, 8])
def test_two_of_four_by_hand(isa, activation_bits):
    """Places 1 and 3 (mask 10, rank 4) have codes 9 and 6 less 8, scale 0.5; 127 / 127 makes x's step 1."""
    codes, patterns = np.full((1, 32), 0x88, np.uint8), np.zeros((1, 12), np.uint8)
    codes[0, :2], patterns[0, 0] = [0x89, 0x86], 4
    x = np.array([[127, 3, 50, -2]], np.float32)
    packed = {"codes": codes, "patterns": patterns, "scales": np.array([[0.5]], np.float16)}
    model = session(
        "SparseLinear", {"x": x}, packed, ORDER, K=4, N=1, bits=4, group=128, kept=2, period=4, pattern_rows=1,
        float4=0, activation_bits=activation_bits,
    )  # fmt: skip
    assert model.run(None, {"x": x})[0].tolist() == [[3 * 0.5 + -2 * -1.0]]


@pytest.mark.parametrize("tiles", [True, False], ids=["tiles", "rows"])
@pytest.mark.parametrize("activation_bits", [32, 8])
@pytest.mark.parametrize("name", NAMES)
def test_every_format(isa, name, activation_bits, tiles):
    rng = np.random.default_rng(0)
    for N, K in [(1, 1), (5, 70), (64, 256), (33, 300), (18, 1000), (112, 384)]:
        weights = Weights(name, N, K, tiles)
        if tiles and weights.attributes["tile"] != 16:
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


@pytest.mark.parametrize("name", ["2:4/int4-g64", "4:8x16/int4-g64", "6:8/int8", "6:8/int4-g16", "fp4-g16"])
def test_extreme_codes_do_not_overflow(isa, name):
    weights = Weights(name, 32, 512)
    for tensor in ("codes", "high"):
        if tensor in weights.packed:
            weights.packed[tensor] = np.full_like(weights.packed[tensor], 0x77 if name == "fp4-g16" else 0xFF)
    weights.packed["scales"][:] = 1  # every sum is exact
    fmt = format_named(name)
    packed = row_tensors(weights.packed) if name == "fp4-g16" else out_of_tiles(fmt, weights.packed, 512)
    weights.w = fmt.decode(Encoded(name, (32, 512), packed)).astype(np.float64)
    x = np.full((9, 512), 3, np.float32)
    for activation_bits in (8, 32):
        close(product(x, weights, activation_bits=activation_bits), x, weights.w)
        close(product(x[:1], weights, activation_bits=activation_bits), x[:1], weights.w)


@pytest.mark.parametrize("tokens", [1, 3, 64])
@pytest.mark.parametrize("activation_bits", [32, 8])
@pytest.mark.parametrize("name", ["2:4/int4-g64", "4:8x16/int4-g64", "6:8/fp4-g16"])
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
    close(session("SparseLinear", inputs, {}, ORDER, **weights.attributes).run(None, inputs)[0], x, weights.w)


@pytest.mark.parametrize(
    "name", ["2:4/int4-g64", "4:16/int4-g64", "4:8x16/int8", "8:16/int5", "6:8/fp4-g16", "3:8x16/int4-g32"]
)
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
    [("2:4/int3-g64", {}), ("2:4/int8-g32", {}), ("4:16/int4-g64", {}), ("4:16/fp4-g32", {}),
     ("4:8x16/int3-g32", {}), ("3:8x16/int3-g64", {}), ("4:8x16/int3-g256", {}), ("2:4/int4-g64", {"kept": 4})],
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
