"""Four-bit floats (e2m1: sign, two bits of exponent, one of mantissa) with a float16 scale per group of inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporters.formats.base import Encoded, Float32, Plane
from exporters.formats.bits import UInt8
from exporters.formats.common import BaseFormat
from exporters.formats.integer import Grid
from exporters.formats.scales import stored_scales
from exporters.formats.units import pack_units, padded_columns, unit_planes, unpack_units

STEPS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
"""What a code stands for, in halves: e2m1 knows 0, 0.5, 1, 1.5, 2, 3, 4, 6."""

_MIDDLES = (STEPS[1:8] + STEPS[:7]) / 2


@dataclass(frozen=True)
class Float4Format(BaseFormat):
    """w = scale * STEPS[code]; twelve steps reach the group's largest weight."""

    group: int
    bits: int = 4

    @property
    def name(self) -> str:
        return f"fp4-g{self.group}"

    @property
    def zero_code(self) -> int:
        return 0

    def groups(self, cols: int) -> int:
        return -(-cols // self.group)

    def planes_for(self, rows: int, cols: int) -> dict[str, Plane]:
        return unit_planes(rows, cols, self.bits, 128) | {
            "scales": Plane((rows, self.groups(cols)), np.dtype(np.float16), power=1)
        }

    def nearest_grid(self, weight: Float32) -> Grid:
        """The grid whose largest value is every group's largest weight."""
        rows, cols = weight.shape
        padded = np.zeros((rows, self.groups(cols) * self.group), np.float32)
        padded[:, :cols] = np.abs(weight)
        return Grid(stored_scales(padded.reshape(rows, -1, self.group).max(-1) / STEPS[7]), None)

    def codes(self, weight: Float32, grid: Grid) -> UInt8:
        """The nearest code of every weight, [rows, cols]; half-way the even code, zero without a sign."""
        steps = weight / np.repeat(grid.scales, self.group, 1)[:, : weight.shape[1]]
        below, above = (np.searchsorted(_MIDDLES, np.abs(steps), side) for side in ("left", "right"))
        magnitude = np.where(below % 2 == 0, below, above)
        codes: UInt8 = (magnitude + 8 * ((steps < 0) & (magnitude > 0))).astype(np.uint8)
        return codes

    def steps(self, codes: NDArray[np.generic]) -> Float32:
        """How many scales a code stands for."""
        steps: Float32 = STEPS[codes.astype(np.intp)]
        return steps

    def store(self, codes: UInt8, grid: Grid) -> Encoded:
        """Planes of codes [rows, cols] on a grid; padding decodes to zero."""
        rows, cols = codes.shape
        padded = np.full((rows, padded_columns(cols)), self.zero_code, np.uint8)
        padded[:, :cols] = codes
        planes = pack_units(padded, self.bits, 128) | {"scales": grid.scales.astype(np.float16)}
        return Encoded(self.name, (rows, cols), planes)

    def nearest(self, weight: Float32) -> Encoded:
        grid = self.nearest_grid(weight)
        return self.store(self.codes(weight, grid), grid)

    def values_of(self, encoded: Encoded) -> Float32:
        cols = encoded.shape[1]
        codes = unpack_units(encoded.planes, self.bits, 128)[:, :cols]
        scales = np.repeat(encoded.planes["scales"].astype(np.float32), self.group, 1)[:, :cols]
        return self.steps(codes) * scales
