"""Tiles of rows by hand: sixteen rows word by word, the rest behind them, and the way back."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.formats.catalog import format_named
from exporters.formats.tiles import row_tensors, tile_of, tiled_tensors


def test_words_of_sixteen_rows_lie_side_by_side():
    codes = np.arange(17 * 8, dtype=np.uint8).reshape(17, 1, 8)
    scales = np.arange(17 * 2, dtype=np.float16).reshape(17, 2)
    packed = tiled_tensors({"codes": codes, "scales": scales})
    flat = packed["codes"].ravel()
    assert flat[:8].tolist() == [0, 1, 2, 3, 8, 9, 10, 11]  # word 0 of rows 0 and 1
    assert flat[64:72].tolist() == [4, 5, 6, 7, 12, 13, 14, 15]  # word 1
    assert flat[128:].tolist() == list(range(128, 136))  # row 16
    assert packed["scales"].ravel()[:3].tolist() == [0, 2, 4]
    assert packed["scales"].ravel()[16:19].tolist() == [1, 3, 5]
    assert packed["scales"].ravel()[32:].tolist() == [32, 33]
    assert packed["codes"].shape == codes.shape and packed["scales"].shape == scales.shape


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 48])
@pytest.mark.parametrize("name", ["int3-g64", "uint5-g32", "int8", "int4-g16"])
def test_the_way_back(name, rows):
    encoded = format_named(name).encode(np.random.default_rng(rows).normal(0, 1, (rows, 70)).astype(np.float32))
    back = row_tensors(tiled_tensors(encoded.packed))
    assert all(np.array_equal(back[n], tensor) for n, tensor in encoded.packed.items())


@pytest.mark.parametrize(
    ("rows", "group", "bits", "tile"),
    [(16, 32, 3, 16), (15, 32, 4, 0), (17, 96, 5, 16), (64, 16, 4, 16), (64, 16, 3, 0), (64, 48, 4, 0)],
)
def test_which_matrices_have_tiles(rows, group, bits, tile):
    assert tile_of(rows, group, bits) == tile
