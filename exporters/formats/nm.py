"""N:M formats: of every M inputs N have a stored code, the others are zero; the pattern is a row's own or 16 rows'."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exporters.errors import SlmcError
from exporters.formats.base import Encoded, Float32, Plane
from exporters.formats.bits import UInt8
from exporters.formats.common import BaseFormat
from exporters.formats.float4 import Float4Format
from exporters.formats.integer import Grid, IntegerFormat
from exporters.formats.patterns import Bool, Patterns, completed, largest
from exporters.formats.tiles import interleaved, separated
from exporters.formats.units import TILE, UNIT, pack_units, padded_columns, unit_planes, units, unpack_units

SHARED_ROWS = 16
"""Rows of one pattern in the formats that share it."""


@dataclass(frozen=True)
class NmFormat(BaseFormat):
    """`kept` of every `period` inputs in the dense format `values`, whose groups count inputs of the dense row.

    planes: codes (and high) of the kept weights as exporters.formats.units lays them out; patterns as
    exporters.formats.patterns codes them, tiled like codes where each row has its own; scales float16 [rows, groups].
    """

    kept: int
    period: int
    values: IntegerFormat | Float4Format
    pattern_rows: int = 1

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

    def planes_for(self, rows: int, cols: int) -> dict[str, Plane]:
        pattern_rows = -(-rows // self.pattern_rows)
        return unit_planes(rows, cols, self.bits, self.kept_per_unit) | {
            "patterns": Plane((pattern_rows, units(cols) * self.pattern_bytes), np.dtype(np.uint8)),
            "scales": Plane((rows, self.groups(cols)), np.dtype(np.float16), power=1),
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
        """Planes of the codes [rows, cols] that `mask` keeps, on a grid [rows, groups] without zeros.

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
        if self.pattern_rows == 1:
            patterns = interleaved(patterns, self.pattern_bytes, TILE)
        kept = stored[self._of_rows(whole, rows)].reshape(rows, -1)
        planes = pack_units(kept, self.bits, self.kept_per_unit)
        return Encoded(
            self.name, (rows, cols), planes | {"patterns": patterns, "scales": grid.scales.astype(np.float16)}
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
        stored = encoded.planes["patterns"].astype(np.uint8)
        if self.pattern_rows == 1:
            stored = separated(stored, self.pattern_bytes, TILE)
        return self._of_rows(self.patterns.decode(stored), rows)[:, :cols]

    def values_of(self, encoded: Encoded) -> Float32:
        rows, cols = encoded.shape
        stored = encoded.planes["patterns"].astype(np.uint8)
        if self.pattern_rows == 1:
            stored = separated(stored, self.pattern_bytes, TILE)
        codes = np.full((rows, padded_columns(cols)), self.values.zero_code, np.uint8)
        codes[self._of_rows(self.patterns.decode(stored), rows)] = unpack_units(
            encoded.planes, self.bits, self.kept_per_unit
        ).ravel()
        scales = np.repeat(encoded.planes["scales"].astype(np.float32), self.group or codes.shape[1], 1)[:, :cols]
        return self.values.steps(codes[:, :cols]) * scales
