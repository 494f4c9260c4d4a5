"""Range search: the scale and zero of every group with the smallest weighted rounding error."""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

from exporters.artifact.native_library import library
from exporters.formats.learned_steps import LARGEST_STEP
from exporters.formats.parts import Grid, Values
from exporters.formats.scales import stored_scales

STEPS = 32
"""Ranges tried per group (for symmetric grids: per sign, and the covering range)."""

CHUNK_GROUPS = 2**16
"""Groups per call of the search. Bounds the memory of the candidate scales."""


def storable(scales: Tensor) -> Tensor:
    """Scales rounded to float16, clamped away from zero and infinity."""
    return torch.from_numpy(stored_scales(scales.numpy()))


def round_to_grid(weight: Tensor, scales: Tensor, zeros: Tensor | float, levels: int) -> Tensor:
    """The codes of weight [..., n], as floats. scales and zeros broadcast against weight; levels: number of codes."""
    return (torch.round(weight / scales) + zeros).clamp_(0, levels - 1)


def _candidates(grouped: Tensor, fmt: Values) -> tuple[Tensor, Tensor | None]:
    """Candidate scales and zeros (None: the format's default), both [candidates, groups], for weights [groups, group].

    A symmetric grid may have a negative scale, which puts its longer side on the positive weights. The covering grid
    is the first candidate. It wins if all importances, and so all errors, are 0.
    """
    if fmt.learned is not None:
        shares = torch.linspace(1.0, fmt.least_share, STEPS)
        reach = grouped.abs().amax(-1) / LARGEST_STEP
        return storable(torch.cat([shares, -shares])[:, None] * reach), None
    if fmt.symmetric:
        below, above = fmt.default_zero, fmt.levels - 1 - fmt.default_zero
        shares = torch.cat([torch.ones(1), torch.linspace(fmt.least_share, below / above, STEPS)])
        reach = grouped.abs().amax(-1) / below
        return storable(torch.cat([shares, -shares])[:, None] * reach), None
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    shares = torch.linspace(1.0, fmt.least_share, STEPS)[:, None]
    scales = storable(shares * (high - low) / (fmt.levels - 1))
    return scales, (-shares * low / scales).round().clamp(0, fmt.levels - 1)


def search_grid(grouped: Tensor, fmt: Values, importance: Tensor) -> tuple[Tensor, Tensor | None]:
    """The scales and zeros that minimise sum_k importance_k (w_k - scale (code_k - zero))^2 over a list of ranges.

    For learned steps, sum_k importance_k (w_k - scale step_k)^2.

    Args:
        grouped: weights, float32 [rows, groups, group].
        importance: float32 [1, groups, group].

    Returns:
        Scales and zeros (None: the format's default), both float32 [rows, groups].
    """
    rows, per_row, size = grouped.shape
    scales, zeros = torch.empty(rows, per_row), None if fmt.symmetric else torch.empty(rows, per_row)
    step = max(1, CHUNK_GROUPS // per_row)
    for start in range(0, rows, step):
        chunk = grouped[start : start + step].reshape(-1, size).contiguous()
        tried, tried_zeros = _candidates(chunk, fmt)
        best = _best(chunk, importance.reshape(per_row, size).contiguous(), tried, tried_zeros, fmt)
        scales[start : start + step] = tried.gather(0, best)[0].view(-1, per_row)
        if zeros is not None and tried_zeros is not None:
            zeros[start : start + step] = tried_zeros.gather(0, best)[0].view(-1, per_row)
    return scales, zeros


def _best(weights: Tensor, importance: Tensor, scales: Tensor, zeros: Tensor | None, fmt: Values) -> Tensor:
    """The index of the best candidate of every group, int64 [1, groups]."""
    groups, size = weights.shape
    best = torch.empty(groups, dtype=torch.int32)
    scales = scales.contiguous()
    nearest = None if fmt.learned is None else steps_by_halves(fmt.learned)
    pointers = [weights, importance, scales, None if zeros is None else zeros.contiguous(), nearest, best]
    sizes = (groups, size, len(importance), len(scales))
    library().slmc_best_grid_f32(
        *(ctypes.c_void_p(None if p is None else p.data_ptr()) for p in pointers),
        *map(ctypes.c_int64, sizes), ctypes.c_float(fmt.default_zero), ctypes.c_float(fmt.levels),
    )  # fmt: skip
    return best.long()[None]


@functools.lru_cache(maxsize=16)
def codes_by_halves(steps: tuple[int, ...]) -> Tensor:
    """The code of the nearest of rising integer steps, int64 [512], for the intervals of 1/2 from -128 on.

    Half-way between two integers is a multiple of 1/2, so every interval has one code; half-way itself is the larger.
    """
    table = torch.tensor(steps, dtype=torch.float64)
    middles = torch.arange(-2 * LARGEST_STEP, 2 * LARGEST_STEP) / 2 + 0.25
    return torch.bucketize(middles, (table[1:] + table[:-1]) / 2)


@functools.lru_cache(maxsize=16)
def steps_by_halves(steps: tuple[int, ...]) -> Tensor:
    """The steps themselves, float32 [512]."""
    return torch.tensor(steps, dtype=torch.float32)[codes_by_halves(steps)]


def grouped(x: Tensor, fmt: Values) -> Tensor:
    """[rows, cols] as [rows, groups, group], padded with zeros."""
    size, groups = fmt.group_size(x.shape[1]), fmt.groups(x.shape[1])
    return torch.nn.functional.pad(x, (0, size * groups - x.shape[1])).view(x.shape[0], groups, size)


def as_grid(scales: Tensor, zeros: Tensor | None) -> Grid:
    """Scales and zeros, both [rows, groups], as a grid of numpy arrays."""
    return Grid(scales.numpy(), None if zeros is None else zeros.numpy())
