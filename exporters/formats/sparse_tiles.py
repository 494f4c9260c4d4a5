"""N:M packed tensors in tiles of 16 rows: how graphs hold them, so that every lane of a vector belongs to a row.

A word has the codes of 4 bytes from its lowest bits up: of b bits, in its 8 / b places, and word after word of all 16
rows, as exporters.formats.tiles has them. Scales go group after group.

Where rows share a pattern and groups fill words (`in_words`), byte j of place p of word w is kept code
(w * 8 / b + p) * 4 + j of its row.

Else codes go block by block, a block being four periods: the first kept code of each of the four periods fills the
bytes of a place, then the second of each. Where each row has its own pattern, the ranks of four periods are four bytes
likewise, split into tensors of 4, 2 and 1 bits (`RANK_BITS`), all of one unit of 128 inputs together. Eight places of
one bit would be more than the four blocks of a unit whose periods have 8 inputs: there two rows of a tile, r and r + 8,
share a word.

Rows behind the last whole tile follow one after another: in the same words, else as exporters.formats.units lays out a
row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exporters.formats.base import Array
from exporters.formats.bits import UInt8
from exporters.formats.integer import CODE_BITS
from exporters.formats.patterns import Patterns
from exporters.formats.tiles import TILE_ROWS, WORD_BYTES, interleaved, separated
from exporters.formats.units import UNIT, pack_units, padded_columns, unpack_units

if TYPE_CHECKING:
    from exporters.formats.nm import NmFormat

RANK_BITS = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1)}
"""Bits of a period's rank -> bits of its packed tensors, the lowest first."""


def in_places(fmt: NmFormat, cols: int) -> bool:
    """Whether there is a kernel for codes that lie by place: 8 bits only with long groups and a row's own pattern."""
    group = fmt.group or padded_columns(cols)
    return fmt.period <= 8 and (fmt.bits == 4 or (fmt.bits == 8 and group % 64 == 0 and fmt.pattern_rows == 1))


def in_words(fmt: NmFormat, cols: int) -> bool:
    """Whether rows share a pattern, and the kept codes of a group fill whole words of every packed tensor."""
    group = fmt.group or padded_columns(cols)
    whole = group % 64 == 0 and group * fmt.kept // fmt.period % 32 == 0
    return fmt.pattern_rows > 1 and whole and -(-cols // group) * group == padded_columns(cols)


def sparse_tile_of(fmt: NmFormat, rows: int, cols: int) -> int:
    """Rows of a tile for a matrix: 16, or 1 where rows follow one another (exporters.formats.units)."""
    return TILE_ROWS if rows >= TILE_ROWS and (in_places(fmt, cols) or in_words(fmt, cols)) else 1


def in_tiles(fmt: NmFormat, packed: Mapping[str, Array], cols: int) -> dict[str, Array]:
    """The packed tensors of a matrix with so many inputs, in tiles; shapes and bytes stay."""
    stored = {name: tensor.astype(np.uint8) for name, tensor in packed.items() if name != "scales"}
    turned = _words_in_tiles if in_words(fmt, cols) else _places_in_tiles
    return {**stored, **turned(fmt, stored), "scales": interleaved(packed["scales"], 1, TILE_ROWS)}


def out_of_tiles(fmt: NmFormat, packed: Mapping[str, Array], cols: int) -> dict[str, Array]:
    """The packed tensors that `in_tiles` put in order."""
    stored = {name: tensor.astype(np.uint8) for name, tensor in packed.items() if name != "scales"}
    turned = _words_out_of_tiles if in_words(fmt, cols) else _places_out_of_tiles
    return {**stored, **turned(fmt, stored), "scales": separated(packed["scales"], 1, TILE_ROWS)}


def _words_in_tiles(fmt: NmFormat, packed: Mapping[str, UInt8]) -> dict[str, UInt8]:
    words = _words(unpack_units(packed, fmt.bits, fmt.kept_per_unit), fmt.bits)
    return {name: interleaved(tensor, WORD_BYTES, TILE_ROWS) for name, tensor in words.items()}


def _words_out_of_tiles(fmt: NmFormat, packed: Mapping[str, UInt8]) -> dict[str, UInt8]:
    words = {name: separated(packed[name], WORD_BYTES, TILE_ROWS) for name in ("codes", "high") if name in packed}
    joined = pack_units(_of_words(words, fmt.bits), fmt.bits, fmt.kept_per_unit)
    return {name: tensor.astype(np.uint8) for name, tensor in joined.items()}


def _places_in_tiles(fmt: NmFormat, packed: Mapping[str, UInt8]) -> dict[str, UInt8]:
    whole = len(packed["codes"]) // TILE_ROWS * TILE_ROWS
    kept = unpack_units(packed, fmt.bits, fmt.kept_per_unit)[:whole]
    places = kept.reshape(whole, -1, 4, fmt.kept).swapaxes(2, 3).reshape(kept.shape)
    codes = interleaved(_words(places, fmt.bits)["codes"], WORD_BYTES, TILE_ROWS)
    turned = {"codes": np.concatenate([codes, packed["codes"][whole:]])}
    if fmt.pattern_rows == 1:
        ranks = _tiled_ranks(fmt, _ranks(fmt, packed["patterns"][:whole]))
        turned["patterns"] = np.concatenate([ranks, packed["patterns"][whole:]])
    return turned


def _places_out_of_tiles(fmt: NmFormat, packed: Mapping[str, UInt8]) -> dict[str, UInt8]:
    whole = len(packed["codes"]) // TILE_ROWS * TILE_ROWS
    places = _of_words({"codes": separated(packed["codes"][:whole], WORD_BYTES, TILE_ROWS)}, fmt.bits)
    kept = places.reshape(whole, -1, fmt.kept, 4).swapaxes(2, 3).reshape(places.shape)
    codes = pack_units(kept, fmt.bits, fmt.kept_per_unit)["codes"].astype(np.uint8)
    turned = {"codes": np.concatenate([codes, packed["codes"][whole:]])}
    if fmt.pattern_rows == 1:
        ranks = _bytes_of_ranks(fmt, _of_tiled_ranks(fmt, packed["patterns"][:whole]))
        turned["patterns"] = np.concatenate([ranks, packed["patterns"][whole:]])
    return turned


def _words(codes: UInt8, bits: int) -> dict[str, UInt8]:
    """Codes [rows, n] as the bytes of words, row by row."""
    low, high = CODE_BITS[bits]
    packed = {"codes": _packed(codes & np.uint8(2**low - 1), low)}
    return packed | ({"high": _packed(codes >> np.uint8(low), high)} if high else {})


def _of_words(packed: Mapping[str, UInt8], bits: int) -> UInt8:
    low, high = CODE_BITS[bits]
    codes = _unpacked(packed["codes"], low)
    return codes | _unpacked(packed["high"], high) << np.uint8(low) if high else codes


def _packed(codes: UInt8, bits: int) -> UInt8:
    parts = codes.reshape(len(codes), -1, 8 // bits, WORD_BYTES)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    joined: UInt8 = np.bitwise_or.reduce(parts << shifts, axis=2).reshape(len(codes), -1)
    return joined


def _unpacked(tensor: UInt8, bits: int) -> UInt8:
    words = tensor.reshape(len(tensor), -1, 1, WORD_BYTES)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    codes: UInt8 = (words >> shifts & np.uint8(2**bits - 1)).reshape(len(tensor), -1)
    return codes


def _ranks(fmt: NmFormat, stored: UInt8) -> UInt8:
    """The rank of every period, [rows, units, blocks, 4], from patterns row by row."""
    width = fmt.patterns.rank_bits
    bits = np.unpackbits(stored, axis=-1, bitorder="little").reshape(len(stored), -1, width)
    ranks: UInt8 = np.bitwise_or.reduce(bits << np.arange(width, dtype=np.uint8), axis=-1)
    return ranks.reshape(len(stored), -1, _blocks(fmt), 4)


def _bytes_of_ranks(fmt: NmFormat, ranks: UInt8) -> UInt8:
    width = fmt.patterns.rank_bits
    bits = ranks.reshape(len(ranks), -1, 1) >> np.arange(width, dtype=np.uint8) & np.uint8(1)
    return np.packbits(bits.reshape(len(ranks), -1), axis=-1, bitorder="little")


def _blocks(fmt: NmFormat) -> int:
    """Of one unit."""
    return UNIT // (4 * fmt.period)


def _tiled_ranks(fmt: NmFormat, ranks: UInt8) -> UInt8:
    """Ranks [rows, units, blocks, 4] of whole tiles as the bytes [rows, bytes] of tiles."""
    tiles, units = len(ranks) // TILE_ROWS, ranks.shape[1]
    packed = []
    for run in rank_bits(fmt.patterns):
        part = (ranks >> np.uint8(run.first) & run.mask).reshape(tiles, *run.shape(units), run.places, 4)
        words = np.bitwise_or.reduce(part << run.shifts, axis=(1, 5))
        packed.append(words.transpose(0, 2, 3, 1, 4).reshape(tiles, units, -1))
    return np.concatenate(packed, axis=-1).reshape(len(ranks), -1)


def _of_tiled_ranks(fmt: NmFormat, stored: UInt8) -> UInt8:
    units = stored.shape[1] // fmt.pattern_bytes
    tiles = stored.reshape(-1, units, TILE_ROWS * fmt.pattern_bytes)
    ranks, at = np.zeros((len(stored), units, _blocks(fmt), 4), np.uint8), 0
    for run in rank_bits(fmt.patterns):
        size = run.words * run.rows * WORD_BYTES
        words = tiles[..., at : at + size].reshape(-1, units, run.words, run.rows, 4).transpose(0, 3, 1, 2, 4)
        part = words[:, None, :, :, :, None] >> run.shifts & run.mask
        ranks |= part.reshape(ranks.shape) << np.uint8(run.first)
        at += size
    return ranks


@dataclass(frozen=True)
class RankBits:
    """One unit's ranks: `words` words of `places` blocks each, of `rows` rows and of those `rows` behind."""

    bits: int
    first: int
    words: int
    places: int
    rows: int

    @property
    def mask(self) -> np.uint8:
        return np.uint8(2**self.bits - 1)

    @property
    def shifts(self) -> UInt8:
        """[rows that share a word, 1, 1, 1, places, 1]"""
        together = TILE_ROWS // self.rows
        shifts = np.arange(together * self.places, dtype=np.uint8) * np.uint8(self.bits)
        return shifts.reshape(together, 1, 1, 1, self.places, 1)

    def shape(self, units: int) -> tuple[int, int, int, int]:
        return TILE_ROWS // self.rows, self.rows, units, self.words


def rank_bits(patterns: Patterns) -> list[RankBits]:
    """The packed tensors of a unit's ranks in tiles, the lowest bits first, as they follow one another."""
    packed, first, blocks = [], 0, UNIT // (4 * patterns.period)
    for bits in RANK_BITS[patterns.rank_bits]:
        places = min(8 // bits, blocks)
        together = 8 // bits // places
        packed.append(RankBits(bits, first, blocks // places, places, TILE_ROWS // together))
        first += bits
    return packed
