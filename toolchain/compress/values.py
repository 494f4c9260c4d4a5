"""Rounding to the values of a format without zeros in torch: symmetric integers and four-bit floats."""

from __future__ import annotations

import torch
from torch import Tensor

from exporters.formats.parts import Values
from toolchain.compress.grids import round_to_grid, storable

TRIED = 17
"""Ranges of a group whose steps are not even that are tried."""


def round_values(weights: Tensor, scales: Tensor, values: Values) -> tuple[Tensor, Tensor]:
    """Codes and what they stand for, both like weights, for scales that broadcast against them."""
    magnitudes = magnitudes_of(values)
    if magnitudes is None:
        codes = round_to_grid(weights, scales, float(values.default_zero), values.levels)
        return codes, (codes - values.default_zero) * scales
    steps = weights / scales
    magnitude = torch.bucketize(steps.abs(), (magnitudes[1:] + magnitudes[:-1]) / 2)
    negative = (steps < 0) & (magnitude > 0)
    codes = (magnitude + len(magnitudes) * negative).to(weights.dtype)
    return codes, torch.where(negative, -magnitudes[magnitude], magnitudes[magnitude]) * scales


def decoded_steps(codes: Tensor, values: Values) -> Tensor:
    """What codes stand for in units of their scale, like codes; anything for codes that these values have not."""
    if values.table is None:
        return codes - values.default_zero
    return torch.from_numpy(values.table)[codes.long() % values.levels]


def magnitudes_of(values: Values) -> Tensor | None:
    """The steps without a sign, in order, of values whose steps are not even."""
    return None if values.table is None else torch.from_numpy(values.table[: values.levels // 2].copy())


def fit_table(weights: Tensor, importance: Tensor, values: Values) -> Tensor:
    """The scales [rows] with the least sum_k importance_k (w_k - rounded_k)^2 over some ranges; weights [rows, n]."""
    assert values.table is not None
    reach = weights.abs().amax(1) / float(values.table.max())
    tried = storable(torch.linspace(1.0, values.least_share, TRIED)[:, None] * reach)  # [shares, rows]
    rounded = round_values(weights, tried[:, :, None], values)[1]
    errors = ((rounded - weights).square() * importance).sum(-1)
    return tried.gather(0, errors.argmin(0)[None])[0]
