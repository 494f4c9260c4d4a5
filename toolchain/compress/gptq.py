"""GPTQ: rounds column by column and compensates each error in the columns that are not yet rounded."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Encoded
from exporters.formats.parts import Values
from toolchain.compress.grids import as_grid, grouped, round_to_grid, search_grid

BLOCK = 128
"""Columns per block. The columns after a block are updated once, with one matrix product."""


@dataclass(frozen=True)
class _Factorised:
    """A factor, and what it is of: a Hessian while it lives and nobody changes it."""

    hessian: weakref.ref[Tensor]
    version: int
    damping: float
    factor: Tensor

    def holds(self, hessian: Tensor, damping: float) -> bool:
        return self.hessian() is hessian and self.version == hessian._version and self.damping == damping


_last: list[_Factorised] = []
"""The newest factor: a search compresses one layer in one format after the other, and all of them need it."""


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """Like `_inverse_factor`, which is not computed again for the same Hessian at once. Not to be changed in place."""
    if not _last or not _last[0].holds(hessian, damping):
        _last[:] = [_Factorised(weakref.ref(hessian), hessian._version, damping, _inverse_factor(hessian, damping))]
    return _last[0].factor


def _inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """U, upper triangular with U^T U = (H + damping mean(diag H) I)^-1, float32 [cols, cols].

    Channels that were always zero in calibration get the mean diagonal, so that they are rounded independently.

    Raises:
        SlmcError: the Hessian is not finite.
    """
    h = hessian.double()
    mean = h.diagonal().mean()
    if not torch.isfinite(mean):
        raise SlmcError("calibration gave a Hessian that is not finite; the model overflows on the calibration text")
    mean = mean if mean > 0 else torch.ones_like(mean)
    unseen = (h.diagonal() == 0).double() * mean
    h = h + torch.diag(unseen + damping * mean)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True).float()
    return factor


@dataclass(frozen=True)
class Gptq:
    """GPTQ (Frantar et al., arXiv 2210.17323). Range search finds the grid of a group when its first column is reached.

    Fixing column j at value c costs (w_j - c)^2 / U_jj^2 and moves the columns k > j by -(w_j - c) / U_jj * U_jk.
    The paper's damping is 0.01. We use ten times as much, because our calibration texts are short and may differ from
    what the model will read.
    """

    damping: float = 0.1
    name: str = "gptq"
    needs_hessian: bool = True

    def compress(self, weight: Tensor, fmt: Values, hessian: Tensor | None) -> Encoded:
        if hessian is None:
            raise SlmcError("gptq needs calibration; choose method nearest or range where there is none")
        codes, scales, zeros = self.rounded(weight, fmt, hessian)
        return fmt.store(codes.to(torch.uint8).numpy(), as_grid(scales, zeros))

    def rounded(self, weight: Tensor, fmt: Values, hessian: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Codes [rows, cols], scales and zeros [rows, groups], all float32. zeros None: the format's default."""
        factor = inverse_factor(hessian, self.damping)
        w, codes = weight.clone(), torch.empty_like(weight)
        importance = factor.diagonal().square().reciprocal()[None]
        size, cols = fmt.group_size(w.shape[1]), w.shape[1]
        scales = w.new_empty(w.shape[0], fmt.groups(cols))
        zeros = None if fmt.symmetric else torch.empty_like(scales)
        step = min(size, BLOCK)
        for start in range(0, cols, step):
            end = min(start + step, cols)
            if start % size == 0:
                g, stop = start // size, min(start + size, cols)
                part = grouped(w[:, start:stop], fmt), fmt, grouped(importance[:, start:stop], fmt)
                group_scales, group_zeros = search_grid(*part)
                scales[:, g] = group_scales[:, 0]
                if zeros is not None and group_zeros is not None:
                    zeros[:, g] = group_zeros[:, 0]
            g = start // size
            zero = float(fmt.default_zero) if zeros is None else zeros[:, g]
            block_codes, errors = _round_block(w[:, start:end], factor[start:end, start:end], scales[:, g], zero, fmt)
            codes[:, start:end] = block_codes
            w[:, end:] -= errors @ factor[start:end, end:]
        return codes, scales, zeros


def _round_block(
    block: Tensor, factor: Tensor, scales: Tensor, zeros: Tensor | float, fmt: Values
) -> tuple[Tensor, Tensor]:
    """Round one block [rows, n]; codes and scaled errors, both [rows, n]."""
    columns = block.t().contiguous()  # [n, rows], so that a column is contiguous
    codes, errors = torch.empty_like(columns), torch.empty_like(columns)
    for j in range(len(columns)):
        codes[j] = round_to_grid(columns[j], scales, zeros, fmt.levels)
        errors[j] = (columns[j] - (codes[j] - zeros) * scales) / factor[j, j]
        columns[j + 1 :].addr_(factor[j, j + 1 :], errors[j], alpha=-1)
    return codes.t(), errors.t()
