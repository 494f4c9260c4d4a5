"""N:M packed tensors in tiles of 16 rows: how graphs hold them, so that every lane of a vector belongs to a row.

A word has the codes of 4 bytes from its lowest bits up: of b bits, in its 8 / b places, and word after word of all 16
rows, as exporters.formats.tiles has them. Scales go group after group.

Where rows share a pattern, byte j of place p of word w is kept code (w * 8 / b + p) * 4 + j of its row.

Where each row has its own, codes and patterns go block by block, a block being four periods: the first kept code of
each of the four periods fills the bytes of a place, then the second of each. The ranks of four periods are four bytes
likewise, split into tensors of 4, 2 and 1 bits (`RANK_BITS`), all of one unit of 128 inputs together. Eight places of
one bit would be more than the four blocks of a unit whose periods have 8 inputs: there two rows of a tile, r and r + 8,
share a word.

Rows behind the last whole tile follow one after another: with a shared pattern in the same words, else as
exporters.formats.units lays out a row.
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
from exporters.formats.units import QUAD, UNIT, pack_units, padded_columns, unpack_units

if TYPE_CHECKING:
    from exporters.formats.nm import NmFormat

RANK_BITS = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1)}
"""Bits of a period's rank -> bits of its packed tensors, the lowest first."""

LEAST_GROUP = 64
"""Inputs of the smallest group that has sums of its own."""

OWN_PATTERN_BITS, OWN_PATTERN_PERIODS = (4, 8), (4, 8)
"""Of the formats with a pattern per row that have a kernel on tiles."""

LEAST_SHARED_CODES = 32
"""Kept codes of a group, with a shared pattern, fill whole words of every packed tensor."""


def sparse_tile_of(fmt: NmFormat, rows: int, cols: int) -> int:
    """Rows of a tile for a matrix: 16, or 0 where it lies in units (exporters.formats.units)."""
    if fmt.values.table is not None or rows < TILE_ROWS:
        return 0
    group = fmt.group or padded_columns(cols)
    if fmt.pattern_rows == 1:
        fits = group % LEAST_GROUP == 0 and fmt.bits in OWN_PATTERN_BITS and fmt.period in OWN_PATTERN_PERIODS
    else:
        kept = group * fmt.kept // fmt.period
        fits = kept % LEAST_SHARED_CODES == 0 and group % LEAST_GROUP == 0
        fits = fits and -(-cols // group) * group == padded_columns(cols)
    return TILE_ROWS if fits else 0


def in_tiles(fmt: NmFormat, packed: Mapping[str, Array]) -> dict[str, Array]:
    """The packed tensors of a format in tiles; shapes and bytes stay."""
    stored = {name: tensor.astype(np.uint8) for name, tensor in packed.items() if name != "scales"}
    turned = _shared_in_tiles if fmt.pattern_rows > 1 else _own_in_tiles
    return {**turned(fmt, stored), "scales": interleaved(packed["scales"], 1, TILE_ROWS)}


def out_of_tiles(fmt: NmFormat, packed: Mapping[str, Array]) -> dict[str, Array]:
    """The packed tensors that `in_tiles` put in order."""
    stored = {name: tensor.astype(np.uint8) for name, tensor in packed.items() if name != "scales"}
    turned = _shared_out_of_tiles if fmt.pattern_rows > 1 else _own_out_of_tiles
    return {**turned(fmt, stored), "scales": separated(packed["scales"], 1, TILE_ROWS)}


def _shared_in_tiles(fmt: NmFormat, packed: Mapping[str, UInt8]) -> dict[str, UInt8]:
    words = _words(unpack_units(packed, fmt.bits, fmt.kept_per_unit), fmt.bits)
    tiled = {name: interleaved(tensor, WORD_BYTES, TILE_ROWS) for name, tensor in words.items()}
    return {**tiled, "patterns": packed["patterns"]}


def _shared_out_of_tiles(fmt: NmFormat, packed: Mapping[str, UInt8]) -> dict[str, UInt8]:
    words = {name: separated(packed[name], WORD_BYTES, TILE_ROWS) for name in ("codes", "high") if name in packed}
    joined = pack_units(_of_words(words, fmt.bits), fmt.bits, fmt.kept_per_unit)
    return {**{n: tensor.astype(np.uint8) for n, tensor in joined.items()}, "patterns": packed["patterns"]}


def _own_in_tiles(fmt: NmFormat, packed: Mapping[str, UInt8]) -> dict[str, UInt8]:
    whole = len(packed["codes"]) // TILE_ROWS * TILE_ROWS
    kept = unpack_units(packed, fmt.bits, fmt.kept_per_unit)[:whole]
    places = kept.reshape(whole, -1, 4, fmt.kept).swapaxes(2, 3).reshape(kept.shape)
    codes = interleaved(_words(places, fmt.bits)["codes"], WORD_BYTES, TILE_ROWS)
    patterns = separated(packed["patterns"], fmt.pattern_bytes, QUAD)
    return {
        "codes": np.concatenate([codes, separated(packed["codes"], _code_bytes(fmt), QUAD)[whole:]]),
        "patterns": np.concatenate([_tiled_ranks(fmt, _ranks(fmt, patterns[:whole])), patterns[whole:]]),
    }


def _own_out_of_tiles(fmt: NmFormat, packed: Mapping[str, UInt8]) -> dict[str, UInt8]:
    whole = len(packed["codes"]) // TILE_ROWS * TILE_ROWS
    places = _of_words({"codes": separated(packed["codes"][:whole], WORD_BYTES, TILE_ROWS)}, fmt.bits)
    kept = places.reshape(whole, -1, fmt.kept, 4).swapaxes(2, 3).reshape(places.shape)
    joined = pack_units(kept, fmt.bits, fmt.kept_per_unit)["codes"].astype(np.uint8)
    codes = np.concatenate([separated(joined, _code_bytes(fmt), QUAD), packed["codes"][whole:]])
    ranks = _of_tiled_ranks(fmt, packed["patterns"][:whole])
    patterns = np.concatenate([_bytes_of_ranks(fmt, ranks), packed["patterns"][whole:]])
    return {
        "codes": interleaved(codes, _code_bytes(fmt), QUAD),
        "patterns": interleaved(patterns, fmt.pattern_bytes, QUAD),
    }


def _code_bytes(fmt: NmFormat) -> int:
    """Of one unit of a row."""
    return fmt.kept_per_unit * fmt.bits // 8


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
