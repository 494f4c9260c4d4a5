"""QLinear and HalfLinear in ONNX Runtime against plain numpy, on every instruction set that this machine has."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_weights import BITS, LINEAR_INPUTS, Weights, qlinear
from one_node import close, session
from rounding import rounded


@pytest.fixture(params=[0, 16], ids=["rows", "tiles"])
def tile(request):
    """Runs a test once per layout of the packed tensors."""
    return request.param


def test_qlinear_of_four_bits_by_hand(isa):
    """K = 3 of a group of 32: codes 9, 8, 6 are +1, 0, -2; times the scale 0.5."""
    codes = np.zeros((1, 1, 16), np.uint8)
    codes[0, 0, :2] = [9 | 8 << 4, 6]
    scales = np.array([[0.5]], np.float16)
    x = np.array([[[2, 100, 4]]], np.float32)
    model = session("QLinear", {"x": x}, {"codes": codes, "scales": scales}, LINEAR_INPUTS, K=3, N=1, bits=4, group=32)
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
    model = session("QLinear", {"x": x}, packed, LINEAR_INPUTS, K=2, N=1, bits=3, group=32)
    assert model.run(None, {"x": x})[0].tolist() == [[8 * 0.5 - 4 * 0.25]]


def test_activations_of_eight_bits_by_hand(isa):
    """max |x| = 127 makes the step 1: 0.5 and 1.5 both round to even, 0 and 2."""
    codes = np.full((1, 1, 16), 0x99, np.uint8)
    x = np.array([[127, 0.5, 1.5, -3]], np.float32)
    model = session(
        "QLinear", {"x": x}, {"codes": codes, "scales": np.ones((1, 1), np.float16)}, LINEAR_INPUTS,
        K=4, N=1, bits=4, group=32, activation_bits=8,
    )  # fmt: skip
    assert model.run(None, {"x": x})[0].tolist() == [[127 + 0 + 2 - 3]]


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
        (35, 100, 16),
        (3, 77, 8),
    ]:
        weights = Weights(rng, N, K, bits, group, zeros)
        for tokens in (1, 2, 7, 33):
            x = rng.standard_normal((1, tokens, K)).astype(np.float32)
            seen = rounded(x, group) if activation_bits == 8 else x
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
            seen = rounded(x, group) if activation_bits == 8 else x
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
    close(qlinear(x, weights, tile, activation_bits=8), rounded(x, 64), weights.w)


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
            seen = rounded(x, 32) if activation_bits == 8 else x
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
            seen = rounded(x, 32) if activation_bits == 8 else x
            close(qlinear(x, weights, tile, activation_bits=activation_bits), seen, weights.w)


def test_weights_may_come_at_run_time(isa):
    rng = np.random.default_rng(0)
    weights = Weights(rng, 6, 64, 3, 32, True)
    x = rng.standard_normal((2, 64)).astype(np.float32)
    inputs = {"x": x, **weights.packed}
    model = session("QLinear", inputs, {}, LINEAR_INPUTS, **weights.attributes)
    close(model.run(None, inputs)[0], x, weights.w)


@pytest.mark.parametrize("tokens", [0, 1, 2, 7, 33])
def test_half_linear(isa, tokens):
    rng = np.random.default_rng(tokens)
    for N, K in [(1, 1), (5, 40), (33, 300), (70, 513)]:
        w = rng.standard_normal((N, K)).astype(np.float16)
        w[0, 0] = 6e-8  # subnormal
        x = rng.standard_normal((1, tokens, K)).astype(np.float32)
        model = session("HalfLinear", {"x": x}, {"w": w}, ["x", "w"])
        close(model.run(None, {"x": x})[0], x, w.astype(np.float64))
