"""Rounding to a table of values, against every value of the table."""

from __future__ import annotations

import torch
from torch import Tensor

from exporters.formats.catalog import format_named
from toolchain.compress.grids import storable
from toolchain.compress.values import TRIED, fit_table, round_values

(PART,) = format_named("fp4-g16").parts
VALUES = PART.values
WEIGHTS = torch.randn(6, 16, generator=torch.Generator().manual_seed(3))


def table() -> Tensor:
    assert VALUES.table is not None
    return torch.from_numpy(VALUES.table)


def test_the_nearest_of_the_table() -> None:
    scales = torch.full((6, 1), 0.37)
    codes, values = round_values(WEIGHTS, scales, VALUES)
    apart = (WEIGHTS[..., None] - table() * 0.37).abs()
    assert torch.allclose((WEIGHTS - values).abs(), apart.amin(-1))
    assert torch.equal(values, table()[codes.long()] * 0.37)


def test_the_range_with_the_least_error() -> None:
    """Each of the ranges tried in turn, with the nearest value found among all of them."""
    importance = torch.rand(16, generator=torch.Generator().manual_seed(4)) + 0.1
    found = fit_table(WEIGHTS, importance, VALUES)
    for row, scale in zip(WEIGHTS, found, strict=True):
        reach = row.abs().max() / table().max()
        tried = storable(torch.linspace(1.0, VALUES.least_share, TRIED) * reach)
        errors = [float(((row[:, None] - table() * s).abs().amin(-1).square() * importance).sum()) for s in tried]
        assert float(scale) in tried.tolist()
        assert errors[tried.tolist().index(float(scale))] <= min(errors) * (1 + 1e-5)
