"""What formats share whose values are few even steps, stored as integers of more levels."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from exporters.formats.base import Encoded, Float32, PackedTensor
from exporters.formats.bits import UInt8
from exporters.formats.grid import GridFormat
from exporters.formats.integer import IntegerFormat
from exporters.formats.parts import Grid, Node, Product, Work


class FewerLevels(GridFormat):
    """Even steps either way of zero, stored as symmetric integers that leave some codes out, whose kernels it has."""

    symmetric = True
    operator = "QLinear"
    table = None

    @property
    @abstractmethod
    def integers(self) -> IntegerFormat:
        """What its packed tensors are those of."""

    def layout_for(self, rows: int, cols: int) -> dict[str, PackedTensor]:
        return self.integers.layout_for(rows, cols)

    def codes(self, weight: Float32, grid: Grid) -> UInt8:
        steps = np.rint(weight / np.repeat(grid.scales, self.group_size(1), 1)[:, : weight.shape[1]])
        most = self.levels - 1 - self.default_zero
        codes: UInt8 = (np.clip(steps, -self.default_zero, most) + self.default_zero).astype(np.uint8)
        return codes

    def steps(self, codes: NDArray[np.generic]) -> Float32:
        """How many scales a code stands for."""
        return codes.astype(np.float32) - np.float32(self.default_zero)

    def store(self, codes: UInt8, grid: Grid) -> Encoded:
        moved = codes + np.uint8(self.integers.default_zero - self.default_zero)
        return dataclasses.replace(self.integers.store(moved, grid), format=self.name)

    def values_of(self, encoded: Encoded) -> Float32:
        return self.integers.values_of(encoded)

    def product(self, encoded: Encoded) -> Product:
        return self.integers.product(encoded)

    def look_up(self, encoded: Encoded, shared: bool = False) -> Node:
        return self.integers.look_up(encoded, shared)

    def work(self, rows: int, cols: int) -> tuple[Work, ...]:
        return self.integers.work(rows, cols)
