"""N:M formats: of every M inputs N have a stored code, the others are zero; the pattern is a row's own or 16 rows'."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Encoded, Float32, Format, PackedTensor
from exporters.formats.bits import UInt8
from exporters.formats.event import PREFIX
from exporters.formats.families import OWN_PATTERNS, SHARED_PATTERNS
from exporters.formats.float4 import SPARSE_TENSORS, Float4Format
from exporters.formats.integer import IntegerFormat
from exporters.formats.parts import Grid, Node, Part, Piece, Product, StoredPart, Term
from exporters.formats.patterns import PERIODS, Bool, Patterns, completed, largest
from exporters.formats.sparse_tiles import in_tiles, sparse_tile_of
from exporters.formats.tiles import TILE_ROWS
from exporters.formats.units import UNIT, pack_units, padded_columns, unit_tensors, units, unpack_units

SHARED_ROWS = 16
"""Rows of one pattern in the formats that share it."""

_NAME = re.compile(r"([0-9]+):([0-9]+)(?:x([0-9]+))?/(.*)", re.ASCII | re.DOTALL)


@dataclass(frozen=True)
class NmFormat(Format):
    """`kept` of every `period` inputs in the dense format `values`, whose groups count inputs of the dense row.

    packed tensors: codes (and high) of the kept weights as exporters.formats.units lays them out; patterns as
    exporters.formats.patterns codes them; scales float16 [rows, groups].
    """

    kept: int
    period: int
    values: IntegerFormat | Float4Format
    pattern_rows: int = 1

    linear_only = True
    operator = "SparseLinear"

    @classmethod
    def named(cls, name: str, others: Callable[[str], Format]) -> Self | None:
        if "/" not in name or "+" in name or name.startswith(PREFIX):
            return None
        return cls.part(name, name, others)

    @classmethod
    def part(cls, part: str, name: str, others: Callable[[str], Format]) -> Self:
        """The format of a name, or of a part of one.

        Raises:
            SlmcError: it is not allowed.
        """
        match = _NAME.fullmatch(part)
        if not match:
            raise SlmcError(f"unknown format {name!r}; sparse formats are written as 2:4/int4-g64 or 4:8x16/int4-g64")
        kept, period = int(match[1]), int(match[2])
        if period not in PERIODS or not 0 < kept < period:
            allowed = ", ".join(map(str, PERIODS))
            raise SlmcError(f"unknown format {name!r}: N:M is {kept}:{period}, allowed are M = {allowed} and 0 < N < M")
        if match[3] and int(match[3]) != SHARED_ROWS:
            raise SlmcError(
                f"unknown format {name!r}: a pattern may be shared by {SHARED_ROWS} rows, {kept}:{period}x{SHARED_ROWS}"
            )
        values = others(match[4])
        if not (isinstance(values, Float4Format) or (isinstance(values, IntegerFormat) and values.symmetric)):
            raise SlmcError(
                f"unknown format {name!r}: behind the slash stands {match[4]}; N:M keeps symmetric integers and "
                "four-bit floats, for zero is among their values: 2:4/int4-g64, 6:8/fp4-g16"
            )
        return cls(kept, period, values, SHARED_ROWS if match[3] else 1)

    @classmethod
    def of_node(cls, operator: str, attributes: Mapping[str, int], cols: int, zeros: bool) -> Format | None:
        if operator != cls.operator or attributes["kept"] == attributes["period"]:
            return None
        group, values = attributes["group"], Float4Format(attributes["group"])
        dense = IntegerFormat(attributes["bits"], group if group < cols else None, True)
        stored = values if attributes["float4"] else dense
        return cls(attributes["kept"], attributes["period"], stored, attributes["pattern_rows"])

    @property
    def family(self) -> str:  # type: ignore[override]
        return OWN_PATTERNS if self.pattern_rows == 1 else SHARED_PATTERNS

    @property
    def name(self) -> str:
        shared = f"x{self.pattern_rows}" if self.pattern_rows > 1 else ""
        return f"{self.kept}:{self.period}{shared}/{self.values.name}"

    @property
    def bits(self) -> int:
        return self.values.bits

    @property
    def group(self) -> int | None:
        return self.values.group

    @property
    def patterns(self) -> Patterns:
        return Patterns(self.kept, self.period)

    @property
    def kept_per_unit(self) -> int:
        return UNIT * self.kept // self.period

    @property
    def pattern_bytes(self) -> int:
        """Of one unit."""
        return UNIT // self.patterns.width * self.patterns.field_bits // 8

    def groups(self, cols: int) -> int:
        return self.values.groups(cols)

    def layout_for(self, rows: int, cols: int) -> dict[str, PackedTensor]:
        pattern_rows = -(-rows // self.pattern_rows)
        return unit_tensors(rows, cols, self.bits, self.kept_per_unit) | {
            "patterns": PackedTensor((pattern_rows, units(cols) * self.pattern_bytes), np.dtype(np.uint8)),
            "scales": PackedTensor((rows, self.groups(cols)), np.dtype(np.float16), power=1),
        }

    def nearest_grid(self, weight: Float32) -> Grid:
        return self.values.nearest_grid(weight)

    def codes(self, weight: Float32, grid: Grid) -> UInt8:
        """The nearest code of every weight, [rows, cols], pruned ones included."""
        return self.values.codes(weight, grid)

    def largest_mask(self, scores: Float32) -> Bool:
        """The mask [rows, cols] that keeps the highest scores (>= 0) of every period; shared patterns add them up."""
        rows, cols = scores.shape
        padded = np.full((rows, padded_columns(cols)), -1, np.float32)
        padded[:, :cols] = scores
        if self.pattern_rows == 1:
            return largest(padded, self.patterns)[:, :cols]
        sums = np.add.reduceat(padded, np.arange(0, rows, self.pattern_rows))
        return np.repeat(largest(sums, self.patterns), self.pattern_rows, 0)[:rows, :cols]

    def store(self, mask: Bool, codes: UInt8, grid: Grid) -> Encoded:
        """Packed tensors of the codes [rows, cols] that `mask` keeps, on a grid [rows, groups] without zeros.

        A period that keeps fewer than it may is filled up with zeros.

        Raises:
            SlmcError: a period keeps more than the format allows, counted over all rows that share its pattern.
        """
        rows, cols = codes.shape
        stored = np.full((rows, padded_columns(cols)), self.values.zero_code, np.uint8)
        stored[:, :cols] = np.where(mask, codes, self.values.zero_code)
        shared = np.zeros(stored.shape, bool)
        shared[:, :cols] = mask
        if self.pattern_rows > 1:
            shared = np.logical_or.reduceat(shared, np.arange(0, rows, self.pattern_rows))
        most = int(shared.reshape(len(shared), -1, self.period).sum(-1).max(initial=0))
        if most > self.kept:
            raise SlmcError(
                f"format {self.name} keeps {self.kept} of {self.period} inputs, and this mask has a period with {most}"
            )
        whole = completed(shared, self.patterns)
        patterns = self.patterns.encode(whole)
        kept = stored[self._of_rows(whole, rows)].reshape(rows, -1)
        packed = pack_units(kept, self.bits, self.kept_per_unit)
        return Encoded(
            self.name, (rows, cols), packed | {"patterns": patterns, "scales": grid.scales.astype(np.float16)}
        )

    def _of_rows(self, mask: Bool, rows: int) -> Bool:
        return mask if self.pattern_rows == 1 else np.repeat(mask, self.pattern_rows, 0)[:rows]

    def nearest(self, weight: Float32) -> Encoded:
        """Pruned by magnitude (shared patterns by the sum of squares), then rounded to the nearest values."""
        scores = np.abs(weight)
        if self.pattern_rows > 1:
            scores = np.square(scores / max(float(scores.max()), np.finfo(np.float32).tiny))
        mask = self.largest_mask(scores)
        pruned = np.where(mask, weight, np.float32(0))
        grid = self.nearest_grid(pruned)
        return self.store(mask, self.codes(pruned, grid), grid)

    def mask(self, encoded: Encoded) -> Bool:
        """Which weights have a stored code, [rows, cols]."""
        rows, cols = encoded.shape
        stored = encoded.packed["patterns"].astype(np.uint8)
        return self._of_rows(self.patterns.decode(stored), rows)[:, :cols]

    def values_of(self, encoded: Encoded) -> Float32:
        rows, cols = encoded.shape
        stored = encoded.packed["patterns"].astype(np.uint8)
        codes = np.full((rows, padded_columns(cols)), self.values.zero_code, np.uint8)
        codes[self._of_rows(self.patterns.decode(stored), rows)] = unpack_units(
            encoded.packed, self.bits, self.kept_per_unit
        ).ravel()
        scales = np.repeat(encoded.packed["scales"].astype(np.float32), self.group or codes.shape[1], 1)[:, :cols]
        return self.values.steps(codes[:, :cols]) * scales

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(self.values, self.kept, self.period, self.pattern_rows),)

    def split(self, encoded: Encoded) -> tuple[StoredPart, ...]:
        return (StoredPart(self.values, self.mask(encoded), encoded.packed["scales"].astype(np.float32)),)

    def join(self, pieces: Sequence[Piece]) -> Encoded:
        (piece,) = pieces
        return self.store(*piece)

    def input_group(self, cols: int) -> int | None:
        return self.group or padded_columns(cols)

    def product(self, encoded: Encoded) -> Product:
        return Product((Term("", (self.node(encoded),)),))

    def node(self, encoded: Encoded) -> Node:
        """The product as one node."""
        rows, cols = encoded.shape
        tile = sparse_tile_of(self, rows, cols)
        packed = in_tiles(self, encoded.packed, cols) if tile == TILE_ROWS else encoded.packed
        attributes = {
            "K": cols, "N": rows, "bits": self.bits, "group": self.group or padded_columns(cols), "kept": self.kept,
            "period": self.period, "pattern_rows": self.pattern_rows, "float4": int(self.values.table is not None),
            "tile": tile,
        }  # fmt: skip
        return Node(self.operator, SPARSE_TENSORS, packed, attributes)
