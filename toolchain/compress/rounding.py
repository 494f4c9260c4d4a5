"""Rounding without error feedback, on the covering grid or on the grid that range search finds."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from exporters.formats.base import Encoded
from exporters.formats.parts import Values
from toolchain.compress.grids import as_grid, grouped, search_grid


@dataclass(frozen=True)
class Nearest:
    """Rounds every weight to nearest on the grid that covers its group."""

    name: str = "nearest"
    needs_hessian: bool = False

    def compress(self, weight: Tensor, fmt: Values, hessian: Tensor | None) -> Encoded:
        return fmt.nearest(weight.numpy())


@dataclass(frozen=True)
class RangeSearch:
    """Rounds to nearest on the grid with the smallest error, weighted by the Hessian's diagonal if it is known."""

    name: str = "range"
    needs_hessian: bool = False

    def compress(self, weight: Tensor, fmt: Values, hessian: Tensor | None) -> Encoded:
        importance = weight.new_ones(1, weight.shape[1]) if hessian is None else hessian.diagonal()[None]
        grid = as_grid(*search_grid(grouped(weight, fmt), fmt, grouped(importance, fmt)))
        return fmt.store(fmt.codes(weight.numpy(), grid), grid)
