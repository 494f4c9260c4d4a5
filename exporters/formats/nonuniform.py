"""Non-uniform weights: codes of 3 or 4 bits for the steps of a table that every matrix has for itself, and a float16
scale per group of inputs.

The table is found by one-dimensional k-means in which a weight counts as much as its error costs (SqueezeLLM, Kim et
al., arXiv 2306.07629, section 4.1). That paper has a table per row and no scales; one for all of a matrix leaves the
bytes of integers as they are. Its steps are 8-bit integers, so that products of bytes serve it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from exporters.formats.base import Encoded, Float32, Format, PackedTensor
from exporters.formats.bits import UInt8
from exporters.formats.grid import GridFormat
from exporters.formats.integer import GROUPS, IntegerFormat
from exporters.formats.learned_steps import LARGEST_STEP, even_steps, learned_steps, nearest_steps
from exporters.formats.parts import Grid, Node, Product, StoredPart, Term
from exporters.formats.scales import stored_scales
from exporters.formats.tiles import tile_of, tiled_tensors

NONUNIFORM_BITS = (3, 4)

TABLE_TENSORS = ("codes", "scales", "high", "steps")
"""As operators take them."""

_NAME = re.compile(r"nl([34])-g([1-9][0-9]*)", re.ASCII)


@dataclass(frozen=True)
class NonUniformFormat(GridFormat):
    """w = scale * steps[code]; steps int8 [2^bits], rising.

    learned: the steps of one matrix, which its name does not tell; None stands for even ones.
    """

    SPELLING = "nl4-g64, nl3-g64 (a table of 16 or 8 values for each matrix)"

    bits: int
    group: int
    learned: tuple[int, ...] | None = field(default=None, compare=False, repr=False)

    operator = "TableLinear"
    symmetric = True
    least_share = 0.5

    @classmethod
    def named(cls, name: str, others: Callable[[str], Format]) -> Self | None:
        match = _NAME.fullmatch(name)
        return cls(int(match[1]), int(match[2])) if match and int(match[2]) in GROUPS else None

    @classmethod
    def of_node(cls, operator: str, attributes: Mapping[str, int], cols: int, zeros: bool) -> Format | None:
        return cls(attributes["bits"], attributes["group"]) if operator == cls.operator else None

    @property
    def name(self) -> str:
        return f"nl{self.bits}-g{self.group}"

    @property
    def levels(self) -> int:
        return int(2**self.bits)

    @property
    def default_zero(self) -> int:
        """The code of the step that is nearest to zero."""
        return int(np.abs(self.table).argmin())

    @property
    def table(self) -> Float32:
        return np.array(even_steps(self.levels) if self.learned is None else self.learned, np.float32)

    @property
    def integers(self) -> IntegerFormat:
        """Whose codes and scales lie as its own do."""
        return IntegerFormat(self.bits, self.group, True)

    def having(self, steps: NDArray[np.generic]) -> Self:
        """The format with the steps of one matrix, [levels]."""
        return dataclasses.replace(self, learned=tuple(int(step) for step in steps))

    def fitted(self, weight: Float32, importance: Float32 | None = None) -> Self:
        grouped = self.integers.grouped(weight).astype(np.float32)
        costs = np.ones((1, weight.shape[1]), np.float32) if importance is None else importance[None]
        return self.having(learned_steps(grouped, self.integers.grouped(costs)[0], self.levels, self.least_share))

    def layout_for(self, rows: int, cols: int) -> dict[str, PackedTensor]:
        return self.integers.layout_for(rows, cols) | {"steps": PackedTensor((self.levels,), np.dtype(np.int8))}

    def nearest_grid(self, weight: Float32) -> Grid:
        """Steps that suit the matrix, on the grid that just covers every group with -128 .. 127."""
        fitted = self if self.learned else self.fitted(weight)
        grouped = self.integers.grouped(weight)
        low, high = grouped.min(-1), grouped.max(-1)
        scales = stored_scales(np.where(-low >= high, -low, -high) / LARGEST_STEP)
        return Grid(scales, None, fitted.table)

    def codes(self, weight: Float32, grid: Grid) -> UInt8:
        """The nearest code of every weight, [rows, cols]; half-way the larger one."""
        table = self.table if grid.steps is None else grid.steps
        return nearest_steps(weight / np.repeat(grid.scales, self.group, 1)[:, : weight.shape[1]], table)

    def store(self, codes: UInt8, grid: Grid) -> Encoded:
        """Packed tensors of codes [rows, cols] on a grid; padding has the step nearest to zero."""
        fitted = self if grid.steps is None else self.having(grid.steps)
        size = self.groups(codes.shape[1]) * self.group
        padded = np.full((len(codes), size), fitted.default_zero, np.uint8)
        padded[:, : codes.shape[1]] = codes
        packed = self.integers.store(padded, Grid(grid.scales, None)).packed
        return Encoded(self.name, codes.shape, {**packed, "steps": fitted.table.astype(np.int8)})

    def values_of(self, encoded: Encoded) -> Float32:
        rows, cols = encoded.shape
        steps = encoded.packed["steps"].astype(np.float32)
        codes = self.integers.codes_of(encoded)
        scales = encoded.packed["scales"].astype(np.float32)[..., None]
        weight: Float32 = (steps[codes] * scales).reshape(rows, -1)[:, :cols]
        return weight

    def split(self, encoded: Encoded) -> tuple[StoredPart, ...]:
        scales = encoded.packed["scales"].astype(np.float32)
        return (StoredPart(self.having(encoded.packed["steps"]), np.ones(encoded.shape, bool), scales),)

    def product(self, encoded: Encoded) -> Product:
        """Packed tensors in tiles (exporters.formats.tiles)."""
        tile = tile_of(encoded.shape[0], self.group, self.bits)
        return Product((Term("", (self._node(self.operator, encoded, tile),)),))

    def look_up(self, encoded: Encoded, shared: bool = False) -> Node:
        """Packed tensors row by row, except those that a linear layer has in tiles."""
        return self._node("TableEmbedding", encoded, tile_of(encoded.shape[0], self.group, self.bits) if shared else 0)

    def _node(self, operator: str, encoded: Encoded, tile: int) -> Node:
        rows, cols = encoded.shape
        rowwise = {name: tensor for name, tensor in encoded.packed.items() if name != "steps"}
        packed = (tiled_tensors(rowwise) if tile else rowwise) | {"steps": encoded.packed["steps"]}
        attributes = {"K": cols, "N": rows, "bits": self.bits, "group": self.group, "tile": tile}
        return Node(operator, TABLE_TENSORS, packed, attributes)
