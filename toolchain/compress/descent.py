"""Coordinate descent on a frozen grid: every code is chosen again, now that all the others stand.

One pass over the Hessian never comes back to a column that it has fixed. Here every column is visited again: with
R = (W - Q) H the best value of column j, all others kept, is Q_j + R_j / H_jj, and its nearest grid value is the best
on the grid, because the objective tr((W - Q) H (W - Q)^T) is quadratic in it (QuantEase, Behdin et al., arXiv
2309.01885, section 3). Between sweeps the scale of every group takes its least-squares value for the codes it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Encoded, Format
from exporters.formats.parts import Values
from toolchain.compress.alps import Alps, damped, solve_masked
from toolchain.compress.gptq import Gptq
from toolchain.compress.grids import as_grid, round_to_grid, storable
from toolchain.compress.joint import JointPass, layout_of

BLOCK = 128
"""Columns whose updates are kept apart before the rest of the residual follows in one product."""

SWEEPS = 4
"""The fifth and later ones gain less than 1 % of the error."""

Fix = Callable[[int, Tensor], Tensor]
"""Column number and what it should be [rows] -> the grid values [rows] that it gets."""


def sweep(values: Tensor, residual: Tensor, hessian: Tensor, fix: Fix) -> None:
    """Visit every column once, in place.

    Args:
        values: Q [rows, cols]; residual: R = (W - Q) H [rows, cols], kept up to date.
        hessian: positive definite [cols, cols].
        fix: gives every entry of a column the nearest of the values that it may have.
    """
    cols = values.shape[1]
    for start in range(0, cols, BLOCK):
        end = min(start + BLOCK, cols)
        inner = hessian[start:end, start:end]
        now, errors = (x[:, start:end].t().contiguous() for x in (values, residual))  # a column is contiguous
        before = now.clone()  # `fix` may note its values where Q is
        for j in range(end - start):
            changed = fix(start + j, now[j] + errors[j] / inner[j, j])
            errors.addr_(inner[j], changed - now[j], alpha=-1)
            now[j] = changed
        residual -= (now - before).t() @ hessian[start:end]
        values[:, start:end] = now.t()


def best_scales(steps: Tensor, scales: Tensor, residual: Tensor, hessian: Tensor, size: int) -> Tensor:
    """Scales [rows, groups] with the least error for codes that stay, one group after another.

    With c a row's steps in a group, the error is quadratic in the scale and least at s + (R c) / (c H c), of which the
    nearest float16 is taken; 0 steps say nothing of a scale, which then stays.

    Args:
        steps: what codes stand for in units of their scale, [rows, cols]; 0 where a weight is none of these groups'.
        residual: R = (W - Q) H [rows, cols], kept up to date; size: columns of a group.
    """
    fitted = scales.clone()
    for g, start in enumerate(range(0, steps.shape[1], size)):
        c = steps[:, start : start + size]
        end = start + c.shape[1]
        curvature = ((c @ hessian[start:end, start:end]) * c).sum(1)
        wish = scales[:, g] + (residual[:, start:end] * c).sum(1) / curvature
        wish = torch.where(curvature > 0, wish, scales[:, g])
        fitted[:, g] = storable(wish)
        residual -= ((fitted[:, g] - scales[:, g])[:, None] * c) @ hessian[start:end]
    return fitted


@dataclass(frozen=True)
class Descent:
    """GPTQ, then sweeps of coordinate descent over codes and scales."""

    damping: float = Gptq.damping
    sweeps: int = SWEEPS
    name: str = "descent"
    needs_hessian: bool = True

    def compress(self, weight: Tensor, fmt: Values, hessian: Tensor | None) -> Encoded:
        if hessian is None:
            raise SlmcError("descent needs calibration; choose method nearest or range where there is none")
        codes, scales, zeros = Gptq(self.damping).rounded(weight, fmt, hessian)
        h, size = damped(hessian, self.damping).float(), fmt.group_size(weight.shape[1])
        steps = codes - (fmt.default_zero if zeros is None else _spread(zeros, size, weight))
        values = steps * _spread(scales, size, weight)
        residual = (weight - values) @ h

        def fix(at: int, column: Tensor) -> Tensor:
            scale, zero = scales[:, at // size], fmt.default_zero if zeros is None else zeros[:, at // size]
            steps[:, at] = round_to_grid(column, scale, zero, fmt.levels) - zero
            return steps[:, at] * scale

        for _ in range(self.sweeps):
            sweep(values, residual, h, fix)
            scales = best_scales(steps, scales, residual, h, size)
            values = steps * _spread(scales, size, weight)
        codes = steps + (fmt.default_zero if zeros is None else _spread(zeros, size, weight))
        return fmt.store(codes.to(torch.uint8).numpy(), as_grid(scales, zeros))


def descend_jointly(weight: Tensor, fmt: Format, hessian: Tensor, sweeps: int = SWEEPS) -> Encoded:
    """A matrix [rows, cols] float32 in a sparse, decomposed or four-bit float format: the strongest that we know
    without gradients.

    The pattern is ALPS's, the kept weights solve their least squares, one pass rounds them, and sweeps go over codes
    and scales. Since what is solved leaves an error that no kept weight can lower, rounding it is the whole problem
    again. Outliers of a decomposed format are the kept weights with the largest w^2 H_jj.

    Args:
        hessian: mean of x x^T, [cols, cols].
    """
    layout, h = layout_of(fmt), damped(hessian, Gptq.damping)
    kinds, solved = None, weight
    keep = sum(part.kept for part in layout.parts)
    if keep < layout.period:
        mask = Alps(Gptq.damping).mask(weight, hessian, keep, layout.period, layout.pattern_rows)
        solved = solve_masked(weight, mask, h)
        kinds = (layout.kinds(solved.square() * h.diagonal().float()) * mask).to(torch.int8)
    run = JointPass(solved, layout, hessian, kinds)
    run.all_columns()
    h = h.float()
    residual = (weight - run.values) @ h
    for _ in range(sweeps):
        sweep(run.values, residual, h, run.fixed)
        _fit_scales(run, residual, h)
        parts = [run.steps(n) * _spread(s, run.sizes[n], weight) for n, s in enumerate(run.scales)]
        run.values = torch.stack(parts).sum(0)
    return run.stored(fmt)


def _fit_scales(run: JointPass, residual: Tensor, hessian: Tensor) -> None:
    for number, size in enumerate(run.sizes):
        run.scales[number] = best_scales(run.steps(number), run.scales[number], residual, hessian, size)


def _spread(groups: Tensor, size: int, like: Tensor) -> Tensor:
    """[rows, groups] as [rows, cols]."""
    return groups.repeat_interleave(size, 1)[:, : like.shape[1]]
