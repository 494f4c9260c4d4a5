"""Rounding to the values of a format without zeros in torch: symmetric integers and four-bit floats."""

from __future__ import annotations

import torch
from torch import Tensor

from exporters.formats.float4 import STEPS, Float4Format
from exporters.formats.integer import IntegerFormat
from toolchain.compress.grids import round_to_grid, storable

_STEPS = torch.from_numpy(STEPS[:8].copy())
_MIDDLES = (_STEPS[1:] + _STEPS[:-1]) / 2

SHARES = torch.linspace(1.0, 0.6, 17)
"""Ranges of a four-bit float group that are tried, as shares of its largest weight."""


def round_values(weights: Tensor, scales: Tensor, values: IntegerFormat | Float4Format) -> tuple[Tensor, Tensor]:
    """Codes and what they stand for, both like weights, for scales that broadcast against them."""
    if isinstance(values, IntegerFormat):
        codes = round_to_grid(weights, scales, float(values.default_zero), values.levels)
        return codes, (codes - values.default_zero) * scales
    steps = weights / scales
    magnitude = torch.bucketize(steps.abs(), _MIDDLES)
    negative = (steps < 0) & (magnitude > 0)
    codes = (magnitude + 8 * negative).to(weights.dtype)
    return codes, torch.where(negative, -_STEPS[magnitude], _STEPS[magnitude]) * scales


def decoded_steps(codes: Tensor, values: IntegerFormat | Float4Format) -> Tensor:
    """What codes stand for in units of their scale, like codes."""
    if isinstance(values, IntegerFormat):
        return codes - values.default_zero
    magnitude = _STEPS[codes.long() % 8]
    return torch.where(codes >= 8, -magnitude, magnitude)


def fit_float4(weights: Tensor, importance: Tensor) -> Tensor:
    """The scales [rows] with the least sum_k importance_k (w_k - rounded_k)^2 over SHARES; weights [rows, n]."""
    reach = weights.abs().amax(1) / float(STEPS[7])
    tried = storable(SHARES[:, None] * reach)  # [shares, rows]
    rounded = round_values(weights, tried[:, :, None], Float4Format(16))[1]
    errors = ((rounded - weights).square() * importance).sum(-1)
    return tried.gather(0, errors.argmin(0)[None])[0]
