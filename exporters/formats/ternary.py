"""Ternary weights: -s, 0 and s, a float16 scale s per group of inputs (Li et al., arXiv 1605.04711)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from exporters.formats.base import Encoded, Float32, Format, PackedTensor
from exporters.formats.bits import UInt8
from exporters.formats.integer import GROUPS, IntegerFormat
from exporters.formats.parts import Grid, Node, Part, Piece, Product, StoredPart, Work
from exporters.formats.scales import stored_scales

_NAME = re.compile(r"ternary-g([1-9][0-9]*)", re.ASCII)


@dataclass(frozen=True)
class TernaryFormat(Format):
    """w = scale * (code - 1), code in 0, 1, 2: integers of two bits that leave one code out, whose kernels it has."""

    SPELLING = "ternary-g64 (-s, 0, s)"

    group: int
    bits: int = 2

    operator = "QLinear"
    symmetric = True
    levels = 3
    default_zero = 1
    table = None
    least_share = 0.1

    @classmethod
    def named(cls, name: str, others: Callable[[str], Format]) -> Self | None:
        match = _NAME.fullmatch(name)
        return cls(int(match[1])) if match and int(match[1]) in GROUPS else None

    @property
    def name(self) -> str:
        return f"ternary-g{self.group}"

    @property
    def integers(self) -> IntegerFormat:
        """What its packed tensors are those of."""
        return IntegerFormat(2, self.group, True)

    def group_size(self, cols: int) -> int:
        return self.group

    def groups(self, cols: int) -> int:
        return self.integers.groups(cols)

    def layout_for(self, rows: int, cols: int) -> dict[str, PackedTensor]:
        return self.integers.layout_for(rows, cols)

    def nearest_grid(self, weight: Float32) -> Grid:
        """The scales with the least squared error: of the k largest of a group the mean, for the best k."""
        largest = -np.sort(-np.abs(self.integers.grouped(weight)).astype(np.float64), axis=-1)
        sums, counts = np.cumsum(largest, -1), np.arange(1, self.group + 1)
        best = (np.square(sums) / counts).argmax(-1)[..., None]
        means = np.take_along_axis(sums / counts, best, -1)[..., 0]
        return Grid(stored_scales(means.astype(np.float32)), None)

    def codes(self, weight: Float32, grid: Grid) -> UInt8:
        steps = np.rint(weight / np.repeat(grid.scales, self.group, 1)[:, : weight.shape[1]])
        codes: UInt8 = (np.clip(steps, -1, 1) + self.default_zero).astype(np.uint8)
        return codes

    def steps(self, codes: NDArray[np.generic]) -> Float32:
        return codes.astype(np.float32) - np.float32(self.default_zero)

    def store(self, codes: UInt8, grid: Grid) -> Encoded:
        moved = codes + np.uint8(self.integers.default_zero - self.default_zero)
        return dataclasses.replace(self.integers.store(moved, grid), format=self.name)

    def nearest(self, weight: Float32) -> Encoded:
        grid = self.nearest_grid(weight)
        return self.store(self.codes(weight, grid), grid)

    def values_of(self, encoded: Encoded) -> Float32:
        return self.integers.values_of(encoded)

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(self),)

    def split(self, encoded: Encoded) -> tuple[StoredPart, ...]:
        return tuple(dataclasses.replace(part, values=self) for part in self.integers.split(encoded))

    def join(self, pieces: Sequence[Piece]) -> Encoded:
        ((_, codes, grid),) = pieces
        return self.store(codes, grid)

    def input_group(self, cols: int) -> int | None:
        return self.group

    def product(self, encoded: Encoded) -> Product:
        return self.integers.product(encoded)

    def look_up(self, encoded: Encoded, shared: bool = False) -> Node:
        return self.integers.look_up(encoded, shared)

    def work(self, rows: int, cols: int) -> tuple[Work, ...]:
        return self.integers.work(rows, cols)
