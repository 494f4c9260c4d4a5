"""QLinear and QEmbedding over tensors in tiles of 16 rows give what rows one after another give, in every reading."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.formats.integer import CODE_BITS, IntegerFormat


def in_tiles(packed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Byte by byte: word w of row n of tile i is word 16 w + n of the tile, and scales likewise."""
    result = {}
    for name, tensor in packed.items():
        unit = 4 if tensor.ndim == 3 else 1
        rows = tensor.reshape(len(tensor), -1)
        length, out = rows.shape[1], rows.copy().ravel()
        for n in range(len(rows) // 16 * 16):
            for k in range(length):
                at = n // 16 * 16 * length + k // unit * 16 * unit + n % 16 * unit + k % unit
                out[at] = rows[n, k]
        result[name] = out.reshape(tensor.shape)
    return result


@pytest.mark.parametrize("tokens", [1, 3, 9])
@pytest.mark.parametrize("activation_bits", [8, 32])
@pytest.mark.parametrize(("K", "group"), [(64, 32), (70, 32), (129, 64), (200, 128), (300, 320), (300, 96)], ids=str)
@pytest.mark.parametrize("symmetric", [True, False], ids=["int", "uint"])
@pytest.mark.parametrize("bits", CODE_BITS)
def test_like_row_by_row(reading, bits, symmetric, K, group, activation_bits, tokens):
    rows = 16 + (bits * K + tokens) % 40
    rng = np.random.default_rng([bits, K, tokens])
    fmt = IntegerFormat(bits, group, symmetric)
    encoded = fmt.encode(rng.normal(0, 1, (rows, K)).astype(np.float32))
    x = rng.normal(0, 1, (1, tokens, K)).astype(np.float32)
    attributes = {"K": K, "N": rows, "bits": bits, "group": group, "activation_bits": activation_bits}
    (expected,) = reading("QLinear", {"x": x, **encoded.packed}, attributes | {"tile": 0})
    (y,) = reading("QLinear", {"x": x, **in_tiles(encoded.packed)}, attributes | {"tile": 16})
    scale = np.abs(x) @ np.abs(fmt.values_of(encoded)).T  # without the exponent, which is a node of its own
    assert y.shape == (1, tokens, rows) and (np.abs(y - expected) <= 2e-6 * scale).all()


@pytest.mark.parametrize("rows", [16, 37])
@pytest.mark.parametrize("symmetric", [True, False], ids=["int", "uint"])
@pytest.mark.parametrize("bits", CODE_BITS)
def test_tokens_pick_the_same_rows(reading, bits, symmetric, rows):
    K, group = 70, 32
    encoded = IntegerFormat(bits, group, symmetric).encode(
        np.random.default_rng([bits, rows]).normal(0, 1, (rows, K)).astype(np.float32)
    )
    tokens, attributes = np.array([[0, rows - 1, 5, 15]]), {"K": K, "N": rows, "bits": bits, "group": group}
    (expected,) = reading("QEmbedding", {"tokens": tokens, **encoded.packed}, attributes | {"tile": 0})
    (y,) = reading("QEmbedding", {"tokens": tokens, **in_tiles(encoded.packed)}, attributes | {"tile": 16})
    assert y.shape == (1, 4, K) and (y == expected).all()
