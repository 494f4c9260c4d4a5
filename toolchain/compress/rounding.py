"""Rounding without feedback: to the nearest value of the covering grid, or of the grid found by range search."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from exporters.formats.base import Encoded
from exporters.formats.parts import Values
from toolchain.compress.grids import as_grid, grouped, search_grid


@dataclass(frozen=True)
class Nearest:
    """Every weight to the nearest value of the grid that just covers its group."""

    name: str = "nearest"
    needs_hessian: bool = False

    def compress(self, weight: Tensor, fmt: Values, hessian: Tensor | None) -> Encoded:
        return fmt.nearest(weight.numpy())


@dataclass(frozen=True)
class RangeSearch:
    """Nearest rounding on the grid with the least error, inputs weighted by their mean square where it is known."""

    name: str = "range"
    needs_hessian: bool = False

    def compress(self, weight: Tensor, fmt: Values, hessian: Tensor | None) -> Encoded:
        importance = weight.new_ones(1, weight.shape[1]) if hessian is None else hessian.diagonal()[None]
        grid = as_grid(*search_grid(grouped(weight, fmt), fmt, grouped(importance, fmt)))
        return fmt.store(fmt.codes(weight.numpy(), grid), grid)
