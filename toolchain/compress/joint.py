"""Pruning, decomposition and rounding in one pass over the columns, with error feedback.

Fixing column j at value c costs (w_j - c)^2 / U_jj^2 and moves the columns k > j by -(w_j - c) / U_jj * U_jk. The
value c is zero for a pruned weight and a grid value of its part otherwise, so pruning and rounding are the same step
(SparseGPT, Frantar and Alistarh, arXiv 2301.00774, section 3). The outliers of SDQ's decomposition (arXiv 2406.13868)
are chosen in the same pass, so that later columns compensate their error too.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from exporters.formats.base import Encoded, Format
from exporters.formats.parts import Grid, Values
from toolchain.compress.gptq import Gptq, inverse_factor
from toolchain.compress.grids import grouped, search_grid
from toolchain.compress.masks import in_groups, per_pattern
from toolchain.compress.values import decoded_steps, fit_table, round_values

BLOCK = 128
"""Columns per block, a multiple of every period. The columns after a block are updated once, with one product."""

PRUNED = 0
"""The kind of a pruned weight. 1 is the first part of a format, 2 the second."""


@dataclass(frozen=True)
class Layout:
    """The parts of a format, the period of its pattern in inputs, and the rows that share one pattern.

    The most important weights go to the first part.

    Attributes:
        kept: weights of every part per period.
        values: number formats of the parts; None leaves a part unrounded, so that the pass only prunes.
    """

    kept: tuple[int, ...]
    values: tuple[Values | None, ...]
    period: int
    pattern_rows: int = 1

    def kinds(self, score: Tensor) -> Tensor:
        """The part of every weight, int8 [rows, cols]; PRUNED if it is in none. score: [rows, cols] >= 0."""
        rows, cols = score.shape
        summed = per_pattern(in_groups(score, self.period, -1.0), self.pattern_rows)
        order = summed.sort(dim=-1, descending=True, stable=True).indices
        kinds = torch.zeros(summed.shape, dtype=torch.int8)
        first = 0
        for number, kept in enumerate(self.kept, 1):
            kinds.scatter_(-1, order[..., first : first + kept], number)
            first += kept
        return kinds.flatten(1)[:, :cols].repeat_interleave(self.pattern_rows, 0)[:rows]


def layout_of(fmt: Format) -> Layout:
    """The layout of a format with parts. All parts have the same period."""
    parts = fmt.parts
    kept, values = tuple(part.kept for part in parts), tuple(part.values for part in parts)
    return Layout(kept, values, parts[0].period, parts[0].pattern_rows)


def fitted_to(layout: Layout, weight: Tensor, hessian: Tensor) -> Layout:
    """The layout whose values have learned from a matrix what they learn of one."""
    importance = hessian.diagonal().numpy()
    values = tuple(v and v.fitted(weight.numpy(), importance) for v in layout.values)
    return dataclasses.replace(layout, values=values)


def prune(weight: Tensor, layout: Layout, hessian: Tensor, kinds: Tensor | None = None) -> Tensor:
    """SparseGPT without rounding: the matrix [rows, cols] with zeros where the layout's only part keeps nothing."""
    run = JointPass(weight, layout, hessian, kinds)
    run.all_columns()
    return run.values


def compress_jointly(weight: Tensor, fmt: Format, hessian: Tensor, kinds: Tensor | None = None) -> Encoded:
    """Compress a matrix into a sparse, decomposed or four-bit float format in one pass.

    Args:
        weight: float32 [rows, cols].
        hessian: mean of x x^T, [cols, cols].
        kinds: the part of every weight, int8 [rows, cols]. None: chosen during the pass by w^2 / U_jj^2.
    """
    run = JointPass(weight, layout_of(fmt), hessian, kinds)
    run.all_columns()
    return run.stored(fmt)


class JointPass:
    """One pass over the columns of a matrix.

    Attributes:
        kinds, codes, values: of every weight, [rows, cols].
        scales: of every part, [rows, groups].
        sizes: columns per group, of every part.
    """

    def __init__(self, weight: Tensor, layout: Layout, hessian: Tensor, kinds: Tensor | None) -> None:
        rows, cols = weight.shape
        self.weight, self.layout = weight.clone(), fitted_to(layout, weight, hessian)
        self.factor = inverse_factor(hessian, Gptq.damping)
        self.importance = self.factor.diagonal().square().reciprocal()
        if kinds is None and layout.kept == (layout.period,):  # nothing to choose
            kinds = torch.ones(rows, cols, dtype=torch.int8)
        self.given = kinds is not None
        self.kinds = torch.zeros(rows, cols, dtype=torch.int8) if kinds is None else kinds
        self.codes, self.values = torch.zeros(rows, cols), torch.zeros(rows, cols)
        self.sizes = [(values and values.group) or cols for values in layout.values]
        self.scales = [torch.ones(rows, -(-cols // size)) for size in self.sizes]

    def all_columns(self) -> None:
        """Fix every column, from the first to the last."""
        cols = self.weight.shape[1]
        for start in range(0, cols, BLOCK):
            end = min(start + BLOCK, cols)
            errors = self._block(start, end)
            self.weight[:, end:] -= errors @ self.factor[start:end, end:]

    def _block(self, start: int, end: int) -> Tensor:
        """Fix the columns of a block and return their scaled errors, [rows, columns]."""
        block = self.weight[:, start:end].t().contiguous()  # [columns, rows], so that a column is contiguous
        errors = torch.empty_like(block)
        for j in range(end - start):
            self._begin(start + j, block[j:])
            value = self.fixed(start + j, block[j])
            errors[j] = (block[j] - value) / self.factor[start + j, start + j]
            block[j + 1 :].addr_(self.factor[start + j, start + j + 1 : end], errors[j], alpha=-1)
        return errors.t()

    def _begin(self, at: int, rest: Tensor) -> None:
        """Choose grids for groups, and kinds for a period, that begin at this column. rest: the block from here on."""
        for number, size in enumerate(self.sizes):
            if at % size == 0:
                self._fit(number, at, self._current(at, size, rest))
        if not self.given and at % self.layout.period == 0:
            now = self._current(at, self.layout.period, rest)
            score = now.square() * self.importance[at : at + now.shape[1]]
            self.kinds[:, at : at + now.shape[1]] = self.layout.kinds(score)

    def _current(self, at: int, count: int, rest: Tensor) -> Tensor:
        """`count` columns from `at` on with their updates so far, [rows, count].

        Columns after the block are updated at its end.
        """
        inside = rest[:count].t()
        behind = self.weight[:, at + inside.shape[1] : at + count]
        return torch.cat([inside, behind], 1) if behind.shape[1] else inside

    def _fit(self, number: int, at: int, weights: Tensor) -> None:
        """Choose the grid of one part for one group, from the weights that currently belong to that part."""
        importance = self.importance[at : at + weights.shape[1]]
        kinds = self.kinds[:, at : at + weights.shape[1]]
        if not self.given:
            kinds = self.layout.kinds(weights.square() * importance)
        own = torch.where(kinds == number + 1, weights, 0.0)
        values = self.layout.values[number]
        if values is None:
            return
        if values.table is None or values.learned is not None:
            scales = search_grid(grouped(own, values), values, grouped(importance[None], values))[0][:, 0]
        else:
            scales = fit_table(own, importance, values)
        self.scales[number][:, at // self.sizes[number]] = scales

    def fixed(self, at: int, column: Tensor) -> Tensor:
        """Round a column [rows] to its grids, record its codes and values, and return the values."""
        kinds, value, codes = self.kinds[:, at], torch.zeros_like(column), torch.zeros_like(column)
        for number, values in enumerate(self.layout.values):
            scales = self.scales[number][:, at // self.sizes[number]]
            own_codes, own_values = round_values(column, scales, values) if values else (codes, column)
            mine = kinds == number + 1
            value, codes = torch.where(mine, own_values, value), torch.where(mine, own_codes, codes)
        self.codes[:, at], self.values[:, at] = codes, value
        return value

    def steps(self, number: int) -> Tensor:
        """The values of a part in units of its scales, [rows, cols]; 0 for weights of other parts."""
        values = self.layout.values[number]
        if values is None:
            return torch.where(self.kinds == number + 1, self.values, 0.0)
        return torch.where(self.kinds == number + 1, decoded_steps(self.codes, values), 0.0)

    def stored(self, fmt: Format) -> Encoded:
        """The matrix in its format."""
        codes, grids = self.codes.to(torch.uint8).numpy(), [self._grid(number) for number in range(len(self.scales))]
        return fmt.join([((self.kinds == i + 1).numpy(), codes, grid) for i, grid in enumerate(grids)])

    def _grid(self, number: int) -> Grid:
        values = self.layout.values[number]
        steps = None if values is None or values.learned is None else values.table
        return Grid(self.scales[number].numpy(), None, steps)
