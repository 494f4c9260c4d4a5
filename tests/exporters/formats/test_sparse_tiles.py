"""N:M packed tensors in tiles of sixteen rows: bytes by hand, and the way back."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from exporters.formats.nm import NmFormat
from exporters.formats.parts import Grid
from exporters.formats.sparse_tiles import in_tiles, out_of_tiles, sparse_tile_of


def sparse(name: str) -> NmFormat:
    fmt = format_named(name)
    assert isinstance(fmt, NmFormat)
    return fmt


def stored(name: str, kept: list[tuple[int, int, int]], rows: int = 17) -> tuple[Encoded, dict[str, np.ndarray]]:
    """A matrix [rows, 128] with codes at (row, input, code), as its format lays it out, and its bytes in tiles."""
    fmt = sparse(name)
    codes, mask = np.full((rows, 128), fmt.values.zero_code, np.uint8), np.zeros((rows, 128), bool)
    for row, place, code in kept:
        codes[row, place], mask[row, place] = code, True
    scales = np.arange(rows * fmt.groups(128), dtype=np.float32).reshape(rows, -1)
    encoded = fmt.store(mask, codes, Grid(scales, None))
    return encoded, {n: tensor.ravel() for n, tensor in in_tiles(fmt, encoded.packed, 128).items()}


def test_a_place_of_four_quads_fills_a_word_half():
    """Row 3 keeps 1 and 3 of the first quad and 2 and 3 of the second: first places 9 and 2, second ones 6 and 1."""
    _, packed = stored("2:4/int4-g128", [(3, 1, 9), (3, 3, 6), (3, 6, 2), (3, 7, 1)])
    assert packed["codes"][12:16].tolist() == [0x69, 0x12, 0x88, 0x88]  # word 0 of row 3
    assert (np.delete(packed["codes"], [12, 13]) == 0x88).all()


def test_ranks_of_quads_lie_in_packed_tensors():
    """Masks 1010 and 1100 are ranks 4 and 5 of six: high bits 1 and 1, low ones 0 and 1; in block 5 bits 5 of bytes."""
    _, packed = stored("2:4/int4-g128", [(3, 1, 9), (3, 3, 6), (3, 6, 2), (3, 7, 1)])
    assert packed["patterns"][12:16].tolist() == [0, 1, 0, 0]  # two bits each: words of blocks 0 .. 3, then 4 .. 7
    assert packed["patterns"][128 + 12 : 128 + 16].tolist() == [1, 1, 0, 0]
    _, packed = stored("2:4/int4-g128", [(3, 81, 9), (3, 83, 6), (3, 86, 2), (3, 87, 1)])
    assert packed["patterns"][64 + 12 : 64 + 16].tolist() == [0, 1 << 2, 0, 0]
    assert packed["patterns"][128 + 12 : 128 + 16].tolist() == [1 << 5, 1 << 5, 0, 0]


def test_two_rows_share_the_last_bits_of_eight_inputs():
    """Four of eight: 11110000 is the last of 70 ranks, 69 = 100 0101; row 3 in block 2, row 11 = 3 + 8 in block 1."""
    kept = [(3, 64 + i, 9) for i in (4, 5, 6, 7)] + [(11, 32 + i, 9) for i in (4, 5, 6, 7)]
    _, packed = stored("4:8/int4-g128", kept)
    patterns = packed["patterns"]
    assert patterns[64 + 12] == 5  # four bits: the second word, of blocks 2 and 3
    assert patterns[44] == 5 << 4  # row 11 in the first word
    assert patterns[128 + 12] == 0 and patterns[128 + 44] == 0  # two bits
    assert patterns[192 + 12] == (1 << 2) | (1 << (4 + 1))  # one bit, of both rows
    assert patterns[: 16 * 14].sum() == 5 + (5 << 4) + 4 + 32


def test_codes_of_a_shared_pattern_stay_in_order():
    """Sixteen rows keep the first half of every eight inputs: word 0 has codes 0 .. 3 below 4 .. 7."""
    kept = [(row, i, 1 + i % 8) for row in range(16) for i in range(16) if i % 8 < 4]
    _, packed = stored("4:8x16/int4-g128", kept, rows=16)
    assert packed["codes"][:8].tolist() == [0x11, 0x22, 0x33, 0x44] * 2  # rows 0 and 1
    assert packed["codes"][64:68].tolist() == [0x88] * 4


def test_codes_of_a_shared_pattern_lie_by_place_where_groups_fill_no_words():
    """Places 4 .. 7 of the first quad's eight inputs have codes 1 .. 4: the first and second are byte 0 of word 0."""
    kept = [(row, 4 + i, 1 + i) for row in range(16) for i in range(4)]
    encoded, packed = stored("4:8x16/int4-g32", kept, rows=16)
    assert packed["codes"][:4].tolist() == [0x21, 0x88, 0x88, 0x88]  # row 0
    assert packed["codes"][64:68].tolist() == [0x43, 0x88, 0x88, 0x88]
    assert packed["patterns"].tolist() == encoded.packed["patterns"].ravel().tolist()


def test_scales_lie_group_by_group_and_the_rest_of_the_rows_behind():
    encoded, packed = stored("2:4/int4-g64", [(16, 1, 9)])
    assert packed["scales"][:3].tolist() == [0, 2, 4] and packed["scales"][32:].tolist() == [32, 33]
    assert packed["codes"][16 * 32 :].tolist() == encoded.packed["codes"][16].tolist()
    assert packed["patterns"][16 * 12 :].tolist() == encoded.packed["patterns"][16].tolist()


@pytest.mark.parametrize("rows", [16, 17, 37, 64])
@pytest.mark.parametrize(
    "name",
    ["2:4/int4-g64", "1:4/int8", "3:4/int4-g128", "1:8/int8", "2:8/int4-g64", "3:8/int4-g64", "4:8/int8-g64",
     "5:8/int4-g256", "6:8/int4-g128", "7:8/int4", "4:8x16/int3-g64", "8:16x16/int5-g64", "2:4x16/int8",
     "4:8x16/int2-g128", "6:8x16/int6", "2:4/int4-g32", "6:8/fp4-g16", "4:8x16/fp4-g32", "3:8x16/int4-g64"],
)  # fmt: skip
def test_the_way_back(name, rows):
    fmt = sparse(name)
    assert sparse_tile_of(fmt, rows, 640) == 16
    encoded = fmt.encode(np.random.default_rng(rows).standard_normal((rows, 640)).astype(np.float32))
    tiled = in_tiles(fmt, encoded.packed, 640)
    assert {n: p.shape for n, p in tiled.items()} == {n: p.shape for n, p in encoded.packed.items()}
    back = out_of_tiles(fmt, tiled, 640)
    assert all(np.array_equal(back[n], tensor) for n, tensor in encoded.packed.items())


@pytest.mark.parametrize(
    ("name", "rows", "cols", "tile"),
    [("2:4/int4-g64", 16, 70, 16), ("2:4/int4-g64", 15, 70, 1), ("2:4/int4-g32", 16, 128, 16),
     ("2:4/int3-g64", 16, 128, 1), ("8:16/int4-g64", 16, 128, 1), ("6:8/fp4-g16", 16, 128, 16),
     ("4:8x16/int3-g64", 16, 128, 16), ("4:8x16/int3-g64", 16, 64, 1), ("3:8x16/int4-g64", 16, 128, 16),
     ("3:8x16/int3-g64", 16, 128, 1), ("2:4/int8-g32", 16, 128, 1),
     ("4:16x16/int4-g16", 16, 128, 1), ("2:8x16/int4", 16, 128, 16)],
)  # fmt: skip
def test_which_matrices_have_tiles(name, rows, cols, tile):
    fmt = format_named(name)
    assert sparse_tile_of(fmt, rows, cols) == tile  # type: ignore[arg-type]
