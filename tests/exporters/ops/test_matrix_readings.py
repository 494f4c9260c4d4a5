"""Products and look-ups of random weights of every width say the same in every reading."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from rounding import rounded

from exporters.formats.integer import CODE_BITS


def bits_of(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes [..., n] as bytes [..., n * bits / 8], least significant bits first."""
    places = (codes[..., None] >> np.arange(bits)) & 1
    return np.packbits(places.reshape(*codes.shape[:-1], -1).astype(np.uint8), axis=-1, bitorder="little")


@dataclass(frozen=True)
class Matrix:
    """Packed tensors as stored, whatever stands in the padding, and the matrix float64 [N, K] that they mean."""

    packed: dict[str, np.ndarray]
    attributes: dict[str, float]
    weight: np.ndarray


def random_matrix(N: int, K: int, bits: int, group: int, zeros: bool) -> Matrix:
    rng = np.random.default_rng([N, K, bits, group, zeros])
    low, high = CODE_BITS[bits]
    groups = -(-K // group)
    codes = rng.integers(0, 2**bits, (N, groups, group))
    scales = (rng.uniform(0.01, 1, (N, groups)) * rng.choice([-1, 1], (N, groups))).astype(np.float16)
    packed = {"codes": bits_of(codes % 2**low, low), "scales": scales}
    offsets = rng.integers(0, 2**bits, (N, groups)) if zeros else np.full((N, groups), 2 ** (bits - 1))
    if high:
        packed["high"] = bits_of(codes >> low, high)
    if zeros:
        packed["zeros"] = offsets.astype(np.uint8)
    weight = ((codes - offsets[..., None]) * scales[..., None].astype(np.float64)).reshape(N, -1)[:, :K]
    return Matrix(packed, {"K": K, "N": N, "bits": bits, "group": group}, weight)


# (K, group): full groups, a last group in part, K smaller than a group; then one scale per row
LAYOUTS = [(64, 32), (70, 32), (129, 64), (5, 16), (200, 128), (100, 128), (70, 96), (300, 320)]
widths = pytest.mark.parametrize("bits", CODE_BITS)
with_zeros = pytest.mark.parametrize("zeros", [False, True], ids=["int", "uint"])
layouts = pytest.mark.parametrize(("K", "group"), LAYOUTS, ids=lambda n: str(n))


def close(y: np.ndarray, x: np.ndarray, weight: np.ndarray) -> bool:
    """Whether y = x W^T to the rounding of a float32 sum."""
    x64 = x.astype(np.float64)
    return bool((np.abs(y - x64 @ weight.T) <= 2e-6 * (np.abs(x64) @ np.abs(weight.T))).all())


@widths
@with_zeros
@layouts
@pytest.mark.parametrize("activation_bits", [32, 8])
def test_qlinear(reading, bits, zeros, K, group, activation_bits):
    matrix = random_matrix(9, K, bits, group, zeros)
    x = np.random.default_rng(K).normal(0, 1, (1, 3, K)).astype(np.float32)
    x[0, 1] *= 100
    x[0, 2, :16] = 0
    attributes = matrix.attributes | {"activation_bits": activation_bits, "tile": 0}
    (y,) = reading("QLinear", {"x": x, **matrix.packed}, attributes)
    assert y.shape == (1, 3, 9) and y.dtype == np.float32
    assert close(y, rounded(x, group), matrix.weight) == (activation_bits == 8)
    assert close(y, x, matrix.weight) == (activation_bits == 32)


@widths
@with_zeros
@layouts
def test_qembedding(reading, bits, zeros, K, group):
    matrix = random_matrix(9, K, bits, group, zeros)
    tokens = np.array([[0, 8, 3, 3]])
    (y,) = reading("QEmbedding", {"tokens": tokens, **matrix.packed}, matrix.attributes | {"tile": 0})
    assert y.shape == (1, 4, K) and y.dtype == np.float32
    np.testing.assert_allclose(y, matrix.weight[tokens], rtol=1e-6)


@pytest.mark.parametrize("tokens", [1, 2, 17])
@pytest.mark.parametrize("shape", [(1, 1), (9, 70), (33, 129)], ids=str)
def test_half_linear(reading, shape, tokens):
    rng = np.random.default_rng([*shape, tokens])
    w = rng.normal(0, 1, shape).astype(np.float16)
    x = rng.normal(0, 1, (1, tokens, shape[1])).astype(np.float32)
    (y,) = reading("HalfLinear", {"x": x, "w": w}, {})
    assert y.shape == (1, tokens, shape[0]) and close(y, x, w.astype(np.float64))


@pytest.mark.parametrize("K", [1, 8, 70])
def test_sign_embedding(reading, K):
    rng = np.random.default_rng(K)
    signs = rng.choice([-1, 1], (5, K))
    padded = np.concatenate([signs > 0, rng.integers(0, 2, (5, -K % 8)) > 0], 1)
    tokens = np.array([[4, 0, 2]])
    codes = np.packbits(padded, axis=-1, bitorder="little")
    (y,) = reading("SignEmbedding", {"tokens": tokens, "codes": codes}, {"K": K, "N": 5})
    np.testing.assert_array_equal(y, signs[tokens])
