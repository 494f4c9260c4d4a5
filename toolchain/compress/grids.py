"""Range search: for every group the scale (and zero) whose rounding error, weighted by importance, is smallest."""

from __future__ import annotations

import torch
from torch import Tensor

from exporters.formats.integer import LARGEST_SCALE, SMALLEST_SCALE, Grid, IntegerFormat

SMALLEST_SHARE = 0.3
"""Ranges are tried from this share of the largest weight upwards."""

STEPS = 32


def _stored(scales: Tensor) -> Tensor:
    """Scales as float16 keeps them, away from zero and infinity."""
    sign = torch.where(scales < 0, -1.0, 1.0)
    return (sign * scales.abs().clamp(SMALLEST_SCALE, LARGEST_SCALE)).half().float()


def round_to_grid(weight: Tensor, scales: Tensor, zeros: Tensor | float, levels: int) -> Tensor:
    """The codes of weight [..., n], for scales and zeros that broadcast against it."""
    return (torch.round(weight / scales) + zeros).clamp_(0, levels - 1)


def _candidates(grouped: Tensor, fmt: IntegerFormat) -> list[tuple[Tensor, Tensor | float]]:
    """Scales [rows, groups] and zeros to try for weights [rows, groups, group], the covering grid among them."""
    if fmt.symmetric:
        reach, half = grouped.abs().amax(-1), fmt.default_zero
        shares = torch.linspace(SMALLEST_SHARE, half / (half - 1), STEPS).tolist()
        return [(_stored(sign * share * reach / half), float(half)) for share in [*shares, 1.0] for sign in (1, -1)]
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    tried: list[tuple[Tensor, Tensor | float]] = []
    for share in torch.linspace(SMALLEST_SHARE, 1.0, STEPS).tolist():
        scales = _stored(share * (high - low) / (fmt.levels - 1))
        tried.append((scales, (-share * low / scales).round().clamp(0, fmt.levels - 1)))
    return tried


def search_grid(grouped: Tensor, fmt: IntegerFormat, importance: Tensor) -> tuple[Tensor, Tensor | None]:
    """The best scales and zeros [rows, groups] for weights [rows, groups, group], importance broadcasting likewise.

    Minimises sum_k importance_k (w_k - scale (code_k - zero))^2 over a fixed list of ranges; a symmetric grid may
    have a negative scale, which puts its longer side on the positive weights.
    """
    best_error = torch.full(grouped.shape[:-1], torch.inf)
    best_scales, best_zeros = torch.ones_like(best_error), torch.zeros_like(best_error)
    for scales, zeros in _candidates(grouped, fmt):
        zero = zeros[..., None] if isinstance(zeros, Tensor) else zeros
        codes = round_to_grid(grouped, scales[..., None], zero, fmt.levels)
        error = ((codes.sub_(zero).mul_(scales[..., None]).sub_(grouped)).square_().mul_(importance)).sum(-1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_scales = torch.where(better, scales, best_scales)
        if not fmt.symmetric:
            best_zeros = torch.where(better, zeros, best_zeros)
    return best_scales, None if fmt.symmetric else best_zeros


def grouped(x: Tensor, fmt: IntegerFormat) -> Tensor:
    """[rows, cols] as [rows, groups, group], zeros after the last column."""
    size, groups = fmt.group_size(x.shape[1]), fmt.groups(x.shape[1])
    return torch.nn.functional.pad(x, (0, size * groups - x.shape[1])).view(x.shape[0], groups, size)


def as_grid(scales: Tensor, zeros: Tensor | None) -> Grid:
    return Grid(scales.numpy(), None if zeros is None else zeros.numpy())
