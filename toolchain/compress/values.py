"""Rounding in torch for formats without zero points: symmetric integers, four-bit floats and tables of steps."""

from __future__ import annotations

import torch
from torch import Tensor

from exporters.formats.learned_steps import LARGEST_STEP
from exporters.formats.parts import Values
from toolchain.compress.grids import codes_by_halves, round_to_grid, storable

TRIED = 17
"""Ranges tried for a group of four-bit floats."""


def round_values(weights: Tensor, scales: Tensor, values: Values) -> tuple[Tensor, Tensor]:
    """The nearest codes and their values, both shaped like weights. scales broadcast against weights."""
    if values.learned is not None:
        found = codes_of_steps(weights / scales, values.learned)
        return found.to(weights.dtype), torch.tensor(values.learned, dtype=weights.dtype)[found] * scales
    magnitudes = magnitudes_of(values)
    if magnitudes is None:
        codes = round_to_grid(weights, scales, float(values.default_zero), values.levels)
        return codes, (codes - values.default_zero) * scales
    steps = weights / scales
    magnitude = torch.bucketize(steps.abs(), (magnitudes[1:] + magnitudes[:-1]) / 2)
    negative = (steps < 0) & (magnitude > 0)
    codes = (magnitude + len(magnitudes) * negative).to(weights.dtype)
    nearest = magnitudes[magnitude]
    return codes, torch.where(negative, -nearest, nearest) * scales


def codes_of_steps(weights: Tensor, steps: tuple[int, ...]) -> Tensor:
    """The codes of weights in units of their scale, int64, for rising integer steps; half-way the larger one."""
    at = (2 * weights).floor() + 2 * LARGEST_STEP
    return codes_by_halves(steps)[at.clamp(0, 4 * LARGEST_STEP - 1).long()]


def decoded_steps(codes: Tensor, values: Values) -> Tensor:
    """The values of codes in units of their scale, shaped like codes. Invalid codes give arbitrary values."""
    if values.table is None:
        return codes - values.default_zero
    return torch.from_numpy(values.table)[codes.long() % values.levels]


def magnitudes_of(values: Values) -> Tensor | None:
    """The magnitudes of a table of values in ascending order; None for evenly spaced values."""
    return None if values.table is None else torch.from_numpy(values.table[: values.levels // 2].copy())


def fit_table(weights: Tensor, importance: Tensor, values: Values) -> Tensor:
    """The scales [rows] that minimise sum_k importance_k (w_k - rounded_k)^2 over `TRIED` ranges.

    Args:
        weights: float32 [rows, n].
        importance: float32 [n].
        values: four-bit floats.
    """
    magnitudes = magnitudes_of(values)
    assert magnitudes is not None
    wanted = weights.abs()  # a table is symmetric, and signs cost as much again
    reach = wanted.amax(1) / magnitudes[-1]
    tried = storable(torch.linspace(1.0, values.least_share, TRIED)[:, None] * reach)  # [shares, rows]
    nearest = magnitudes[torch.bucketize(wanted / tried[:, :, None], (magnitudes[1:] + magnitudes[:-1]) / 2)]
    errors = ((nearest * tried[:, :, None] - wanted).square() * importance).sum(-1)
    return tried.gather(0, errors.argmin(0)[None])[0]
