"""Rounding without feedback, by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from exporters.formats.base import Encoded, bytes_for
from exporters.formats.catalog import SEARCHED, format_named
from exporters.formats.integer import IntegerFormat
from toolchain.compress.grids import grouped, round_to_grid, search_grid
from toolchain.compress.rounding import Nearest, RangeSearch

INTEGER = [f for f in SEARCHED if isinstance(f, IntegerFormat)]


def decoded(encoded: Encoded) -> Tensor:
    return torch.from_numpy(format_named(encoded.format).decode(encoded))


def weighted_error(weight: Tensor, encoded: Encoded, importance: Tensor) -> float:
    return float(((decoded(encoded) - weight).double().square() * importance.double()).sum())


def random_matrix(rows: int, cols: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, cols, generator=generator)
    weight[0, : min(3, cols)] *= 12  # outliers, as ffn.value has
    return weight


def test_nearest_int2_by_hand() -> None:
    """The largest weight is 4, so the scale is -4 / 2 and the values are 4, 2, 0, -2."""
    weight = torch.tensor([[4.0, 1.2, 0.9, -0.9, -3.5, 3.1]])
    encoded = Nearest().compress(weight, IntegerFormat(2, None, True), None)
    assert encoded.packed["scales"].tolist() == [[-2.0]]
    assert decoded(encoded).tolist() == [[4.0, 2.0, 0.0, 0.0, -2.0, 4.0]]


def test_nearest_int3_with_its_larger_side_below_zero_by_hand() -> None:
    """The largest is -2, the scale 2 / 4, and the values run from -2 to 1.5; 2 codes are one byte's bits 0 to 3."""
    weight = torch.tensor([[-2.0, 1.9, 0.26, -0.24]])
    encoded = Nearest().compress(weight, IntegerFormat(3, None, True), None)
    assert decoded(encoded).tolist() == [[-2.0, 1.5, 0.5, 0.0]]
    # Codes 0, 7, 5, 4: low bits 00 11 01 00 from the right, high bits 0 1 1 1, padding on code 0.
    assert encoded.packed["codes"][0, 0, 0] == 0b00011100
    assert encoded.packed["high"][0, 0, 0] & 0b1111 == 0b1110


def test_nearest_halves_go_to_the_even_code() -> None:
    weight = torch.tensor([[-8.0, 0.5, 1.5, 2.5, -0.5, -1.5]])
    encoded = Nearest().compress(weight, IntegerFormat(4, None, True), None)
    assert decoded(encoded).tolist() == [[-8.0, 0.0, 2.0, 2.0, 0.0, -2.0]]


def test_nearest_uint2_by_hand() -> None:
    """From -1 to 5 in four steps of 2: the zero, round(1 / 2), is 0, so that -1 becomes 0 and 5 (code 2.5) 4."""
    encoded = Nearest().compress(torch.tensor([[-1.0, 5.0, 3.2, 0.9]]), IntegerFormat(2, None, False), None)
    assert encoded.packed["scales"].tolist() == [[2.0]]
    assert encoded.packed["zeros"].tolist() == [[0]]
    assert decoded(encoded).tolist() == [[0.0, 4.0, 4.0, 0.0]]


def test_every_group_has_its_own_scale() -> None:
    weight = torch.cat([torch.full((1, 16), 0.5), torch.full((1, 16), -8.0)], 1)
    encoded = Nearest().compress(weight, IntegerFormat(4, 16, True), None)
    assert encoded.packed["scales"].tolist() == [[-0.0625, 1.0]]
    assert torch.equal(decoded(encoded), weight)


def test_range_search_clips_an_outlier_that_no_input_reaches() -> None:
    """int2 covers 100 only with steps of 50; where the first input is never used, steps that suit 0.9 are better."""
    weight = torch.tensor([[100.0, 0.9, -0.9, 0.9, -0.9, 45.0]])
    hessian = torch.diag(torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0, 1.0]))
    plain = decoded(RangeSearch().compress(weight, IntegerFormat(2, None, True), None))
    weighted = decoded(RangeSearch().compress(weight, IntegerFormat(2, None, True), hessian))
    assert abs(float(weighted[0, 5]) - 45) < abs(float(plain[0, 5]) - 45)
    assert abs(float(weighted[0, 0]) - 100) > abs(float(plain[0, 0]) - 100)


@pytest.mark.parametrize("fmt", INTEGER, ids=lambda f: f.name)
@pytest.mark.parametrize("seed", range(3))
def test_range_is_never_worse_than_nearest(fmt: IntegerFormat, seed: int) -> None:
    weight = random_matrix(5, 150, seed)
    generator = torch.Generator().manual_seed(seed + 50)
    uneven = 10 ** torch.empty(150).uniform_(-4, 2, generator=generator)
    for importance in (torch.ones(150), uneven):
        nearest = Nearest().compress(weight, fmt, None)
        searched = RangeSearch().compress(weight, fmt, torch.diag(importance))
        ours, plain = (weighted_error(weight, e, importance) for e in (searched, nearest))
        assert ours <= plain * (1 + 1e-5)
    assert ours < 0.99 * plain  # and where inputs differ by a million, better


def test_range_is_never_worse_in_any_single_group() -> None:
    fmt, weight = IntegerFormat(3, 32, True), random_matrix(6, 128)
    errors = [
        grouped((decoded(method.compress(weight, fmt, None)) - weight).square(), fmt).sum(-1)
        for method in (RangeSearch(), Nearest())
    ]
    assert (errors[0] <= errors[1] * (1 + 1e-5)).all()
    assert (errors[0] < 0.9 * errors[1]).any()


def test_search_grid_finds_the_least_error_of_all_the_scales_that_it_tries() -> None:
    """Against a fine sweep of scales: within the sweep's best by a few percent, for every row."""
    fmt, weight = IntegerFormat(3, None, True), random_matrix(8, 32, 4)
    parts = grouped(weight, fmt)
    scales, zeros = search_grid(parts, fmt, torch.ones(1, 1, 32))
    assert zeros is None
    chosen = (round_to_grid(parts, scales[..., None], 4.0, 8) - 4) * scales[..., None]
    error = (chosen - parts).square().sum(-1)[:, 0]
    for row in range(8):
        w, reach = weight[row].numpy(), float(weight[row].abs().max())
        sweep = np.concatenate([np.linspace(0.3, 4 / 3, 2000), -np.linspace(0.3, 4 / 3, 2000)]) * reach / 4
        values = (np.clip(np.rint(w[None] / sweep[:, None]), -4, 3)) * sweep[:, None]
        best = ((values - w) ** 2).sum(1).min()
        assert best * (1 - 2e-3) <= error[row] <= best * 1.06


@pytest.mark.parametrize("method", [Nearest(), RangeSearch()], ids=lambda m: m.name)
@pytest.mark.parametrize("fmt", INTEGER, ids=lambda f: f.name)
def test_all_zero_and_constant_rows(method: Nearest | RangeSearch, fmt: IntegerFormat) -> None:
    weight = torch.zeros(3, 70)
    weight[1], weight[2] = 0.25, -0.25
    result = decoded(method.compress(weight, fmt, None))
    assert torch.equal(result[0], weight[0])
    assert (result - weight).abs().max() < 1e-3


@pytest.mark.parametrize("fmt", INTEGER, ids=lambda f: f.name)
def test_groups_of_inputs_that_calibration_never_saw_are_still_covered(fmt: IntegerFormat) -> None:
    """Every range has the same weighted error, zero; the one that clips nothing is to be taken."""
    weight = random_matrix(4, 128, 2)
    searched = RangeSearch().compress(weight, fmt, torch.zeros(128, 128))
    covering = Nearest().compress(weight, fmt, None)
    ours, nearest = (weighted_error(weight, encoded, torch.ones(128)) for encoded in (searched, covering))
    assert ours <= 1.5 * nearest  # a covering grid too, maybe with its longer side on the other sign


@pytest.mark.parametrize("fmt", INTEGER, ids=lambda f: f.name)
def test_the_size_law_holds(fmt: IntegerFormat) -> None:
    for rows, cols in ((1, 1), (3, 64), (5, 150)):
        encoded = RangeSearch().compress(random_matrix(rows, cols), fmt, None)
        assert encoded.nbytes == bytes_for(fmt, rows, cols)
        assert encoded.shape == (rows, cols)


def test_grouped_pads_with_zeros() -> None:
    parts = grouped(torch.arange(1.0, 6).reshape(1, 5), IntegerFormat(4, 16, True))
    assert parts.shape == (1, 1, 16)
    assert parts[0, 0].tolist() == [1, 2, 3, 4, 5] + [0] * 11
