"""Four-bit floats (e2m1: sign, two bits of exponent, one of mantissa) with a float16 scale per group of inputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Encoded, Float32, Format, PackedTensor
from exporters.formats.bits import UInt8
from exporters.formats.families import FLOAT4
from exporters.formats.grid import GridFormat
from exporters.formats.integer import IntegerFormat
from exporters.formats.parts import Grid, Node, Product, Term
from exporters.formats.scales import stored_scales
from exporters.formats.tiles import TILE_ROWS, tiled_tensors

STEPS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
"""What a code stands for, in halves: e2m1 knows 0, 0.5, 1, 1.5, 2, 3, 4, 6."""

FLOAT4_GROUPS = (16, 32)

SPARSE_TENSORS = ("codes", "scales", "high", "patterns")
"""As SparseLinear takes them."""

_NAME = re.compile(r"fp4-g([1-9][0-9]*)", re.ASCII)
_MIDDLES = (STEPS[1:8] + STEPS[:7]) / 2


@dataclass(frozen=True)
class Float4Format(GridFormat):
    """w = scale * STEPS[code]; twelve steps reach the group's largest weight."""

    group: int
    bits: int = 4

    family = FLOAT4
    linear_only = True
    operator = "SparseLinear"
    symmetric = True
    levels = len(STEPS)
    default_zero = 0
    table = STEPS
    least_share = 0.6

    @classmethod
    def named(cls, name: str, others: Callable[[str], Format]) -> Self | None:
        match = _NAME.fullmatch(name)
        if not match:
            return None
        if int(match[1]) not in FLOAT4_GROUPS:
            groups = " and ".join(f"fp4-g{g}" for g in FLOAT4_GROUPS)
            raise SlmcError(f"unknown format {name!r}; four-bit floats are {groups}")
        return cls(int(match[1]))

    @classmethod
    def of_node(cls, operator: str, attributes: Mapping[str, int], cols: int, zeros: bool) -> Format | None:
        whole = operator == cls.operator and attributes["float4"] and attributes["kept"] == attributes["period"]
        return cls(attributes["group"]) if whole else None

    @property
    def name(self) -> str:
        return f"fp4-g{self.group}"

    @property
    def zero_code(self) -> int:
        return 0

    @property
    def integers(self) -> IntegerFormat:
        """Whose codes and scales lie as its own do."""
        return IntegerFormat(self.bits, self.group, True)

    def layout_for(self, rows: int, cols: int) -> dict[str, PackedTensor]:
        return self.integers.layout_for(rows, cols)

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
        """Packed tensors of codes [rows, cols] on a grid; padding decodes to zero."""
        padded = np.full((len(codes), self.groups(codes.shape[1]) * self.group), self.zero_code, np.uint8)
        padded[:, : codes.shape[1]] = codes
        return Encoded(self.name, codes.shape, self.integers.store(padded, grid).packed)

    def values_of(self, encoded: Encoded) -> Float32:
        rows, cols = encoded.shape
        scales = encoded.packed["scales"].astype(np.float32)[..., None]
        weight: Float32 = (self.steps(self.integers.codes_of(encoded)) * scales).reshape(rows, -1)[:, :cols]
        return weight

    def product(self, encoded: Encoded) -> Product:
        rows, cols = encoded.shape
        attributes = {
            "K": cols, "N": rows, "bits": self.bits, "group": self.group, "kept": 8, "period": 8, "pattern_rows": 1,
            "float4": 1, "tile": TILE_ROWS,
        }  # fmt: skip
        return Product((Term("", (Node(self.operator, SPARSE_TENSORS, tiled_tensors(encoded.packed), attributes),)),))
