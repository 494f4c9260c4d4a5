"""Coordinate descent over the codes of a quantized matrix.

GPTQ never revisits a column. Coordinate descent updates every column again while all others are fixed. With
R = (W - Q) H the optimum of column j is Q_j + R_j / H_jj. The objective tr((W - Q) H (W - Q)^T) is quadratic in the
column, so the nearest grid value is the best one on the grid (QuantEase, Behdin et al., arXiv 2309.01885, section 3).
Between sweeps the scale of every group is set to its least-squares value for the current codes.
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
"""Columns per block. The residual of the other columns is updated once per block, with one matrix product."""

SWEEPS = 4
"""Further sweeps reduce the error by less than 1 %."""

Fix = Callable[[int, Tensor], Tensor]
"""(column index, wanted values [rows]) -> the nearest grid values [rows]."""


def sweep(values: Tensor, residual: Tensor, hessian: Tensor, fix: Fix) -> None:
    """Update every column once, in place.

    Args:
        values: Q, [rows, cols]; updated.
        residual: R = (W - Q) H, [rows, cols]; updated.
        hessian: positive definite [cols, cols].
        fix: rounds a column to its grid.
    """
    cols = values.shape[1]
    for start in range(0, cols, BLOCK):
        end = min(start + BLOCK, cols)
        inner = hessian[start:end, start:end]
        now, errors = (x[:, start:end].t().contiguous() for x in (values, residual))  # a column is contiguous
        before = now.clone()  # `fix` may write to the memory of Q
        for j in range(end - start):
            changed = fix(start + j, now[j] + errors[j] / inner[j, j])
            errors.addr_(inner[j], changed - now[j], alpha=-1)
            now[j] = changed
        residual -= (now - before).t() @ hessian[start:end]
        values[:, start:end] = now.t()


def best_scales(steps: Tensor, scales: Tensor, residual: Tensor, hessian: Tensor, size: int) -> Tensor:
    """Least-squares scales [rows, groups] for fixed codes, one group after another.

    Let c be the steps of one row in a group. The error is quadratic in the scale s, with its minimum at
    s + (R c) / (c H c), which is rounded to float16. A scale whose steps are all 0 is unchanged.

    Args:
        steps: values of the codes in units of their scale, [rows, cols]; 0 for weights of another part.
        scales: current scales, [rows, groups].
        residual: R = (W - Q) H, [rows, cols]; updated.
        hessian: [cols, cols].
        size: columns per group.
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
    """GPTQ followed by sweeps of coordinate descent over codes and scales."""

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
    """Compress a matrix into a sparse, decomposed or four-bit float format by coordinate descent.

    ALPS chooses the pattern, masked least squares gives the kept weights, one GPTQ-like pass rounds them, and sweeps
    improve codes and scales. The sweeps may compare with the solved weights instead of the original ones: at the
    least-squares solution the rest of the error is constant. The outliers of a decomposed format are the kept weights
    with the largest w^2 H_jj. This is our most accurate method without gradients.

    Args:
        weight: float32 [rows, cols].
        hessian: mean of x x^T, [cols, cols].
        sweeps: of coordinate descent; 0 leaves the rounding pass alone.
    """
    layout, h = layout_of(fmt), damped(hessian, Gptq.damping)
    kinds, solved = None, weight
    keep = sum(layout.kept)
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
    """Repeat [rows, groups] to [rows, cols]."""
    return groups.repeat_interleave(size, 1)[:, : like.shape[1]]
