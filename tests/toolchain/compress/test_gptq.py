"""GPTQ against the definition: fix a column, then solve the normal equations for all columns that are still free."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Encoded
from exporters.formats.catalog import SEARCHED, format_named
from exporters.formats.integer import IntegerFormat
from toolchain.compress import gptq
from toolchain.compress.gptq import Gptq, inverse_factor
from toolchain.compress.rounding import Nearest, RangeSearch

Float64 = NDArray[np.float64]
INTEGER = [f for f in SEARCHED if isinstance(f, IntegerFormat)]
DAMPING = Gptq().damping


def decoded(encoded: Encoded) -> Tensor:
    return torch.from_numpy(format_named(encoded.format).decode(encoded))


def correlated(cols: int, seed: int = 0, tokens: int = 4000) -> Tensor:
    """Mean of x x^T for inputs that lie mostly in a few directions, [cols, cols]."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(max(2, cols // 4), cols, generator=generator)
    x = torch.randn(tokens, len(mix), generator=generator) @ mix + 0.2 * torch.randn(tokens, cols, generator=generator)
    return x.T @ x / tokens


def matrix(rows: int, cols: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))


def output_error(weight: Tensor, encoded: Encoded, hessian: Tensor) -> float:
    """Mean squared error of the layer's output: tr(E H E^T)."""
    error = (decoded(encoded) - weight).double()
    return float((error @ hessian.double() * error).sum())


def slow_gptq(weight: Float64, hessian: Float64, scales: Float64, zeros: Float64, levels: int) -> Float64:
    """Quantised weights [rows, cols]: column by column, the free ones re-solved exactly from the first weights.

    scales, zeros: [rows, cols]. With Q fixed on the columns S, the free columns F that minimise tr(E H E^T) are
    W_F - E_S H_SF H_FF^-1, E_S = Q_S - W_S.
    """
    cols = weight.shape[1]
    h = hessian + DAMPING * np.trace(hessian) / cols * np.eye(cols)
    fixed = np.zeros_like(weight)
    for j in range(cols):
        free = weight[:, j:].copy()
        if j:
            error = fixed[:, :j] - weight[:, :j]
            free -= np.linalg.solve(h[j:, j:], (error @ h[:j, j:]).T).T
        code = np.clip(np.rint(free[:, 0] / scales[:, j]) + zeros[:, j], 0, levels - 1)
        fixed[:, j] = (code - zeros[:, j]) * scales[:, j]
    return fixed


def spread(encoded: Encoded, fmt: IntegerFormat, cols: int) -> tuple[Float64, Float64]:
    """The stored scales and zeros of every weight, [rows, cols]."""
    size = fmt.group_size(cols)
    scales = np.repeat(encoded.packed["scales"].astype(np.float64), size, 1)[:, :cols]
    zeros = np.full_like(scales, fmt.default_zero)
    if "zeros" in encoded.packed:
        zeros = np.repeat(encoded.packed["zeros"].astype(np.float64), size, 1)[:, :cols]
    return scales, zeros


@pytest.mark.parametrize("name", ["int2", "int3", "int4", "int8", "uint2", "uint4"])
@pytest.mark.parametrize("cols", [1, 7, 24])
def test_per_row_grids_agree_with_the_explicit_least_squares(name: str, cols: int) -> None:
    fmt = format_named(name)
    assert isinstance(fmt, IntegerFormat)
    weight, hessian = matrix(6, cols), correlated(cols)
    encoded = Gptq().compress(weight, fmt, hessian)
    grid = spread(encoded, fmt, cols)
    expected = slow_gptq(weight.double().numpy(), hessian.double().numpy(), *grid, fmt.levels)
    assert np.abs(decoded(encoded).numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("name", ["int3-g16", "uint3-g32", "int4-g128", "int2-g256", "int3"])
def test_groups_and_blocks_of_columns_agree_with_the_explicit_least_squares(name: str) -> None:
    """150 columns: more than a block of 128, and no multiple of a group."""
    fmt = format_named(name)
    assert isinstance(fmt, IntegerFormat)
    weight, hessian = matrix(3, 150), correlated(150)
    encoded = Gptq().compress(weight, fmt, hessian)
    expected = slow_gptq(weight.double().numpy(), hessian.double().numpy(), *spread(encoded, fmt, 150), fmt.levels)
    # float32 against float64: a value within a rounding error of a half may fall to either side, and few do.
    wrong = np.abs(decoded(encoded).numpy() - expected) > 1e-5
    assert wrong.mean() < 0.01
    hessian64 = hessian.double().numpy()
    slow_error = expected - weight.double().numpy()
    assert output_error(weight, encoded, hessian) == pytest.approx(
        float((slow_error @ hessian64 * slow_error).sum()), rel=0.02
    )


def test_two_columns_by_hand() -> None:
    """H = [[1, 0.8], [0.8, 1]] without damping: an error e in the first column moves the second by -0.8 e.

    int2 on a row that reaches 2: values -2, -1, 0, 1 with scale 1. The first weight, 0.4, becomes 0, so the second
    becomes 0.4 + 0.8 * 0.4 = 0.72 and is rounded to 1, where nearest rounding gives 0.
    """
    weight = torch.tensor([[0.4, 0.4, -2.0]])
    hessian = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 1e6]])
    encoded = Gptq(damping=0.0).compress(weight, IntegerFormat(2, None, True), hessian)
    assert encoded.packed["scales"].tolist() == [[1.0]]
    assert decoded(encoded).tolist() == [[0.0, 1.0, -2.0]]
    assert decoded(Nearest().compress(weight, IntegerFormat(2, None, True), None)).tolist() == [[0.0, 0.0, -2.0]]


def test_inverse_factor_is_the_cholesky_factor_of_the_inverse() -> None:
    hessian = correlated(20)
    factor = inverse_factor(hessian, DAMPING).double().numpy()
    damped = hessian.double().numpy() + DAMPING * np.trace(hessian.double().numpy()) / 20 * np.eye(20)
    assert np.allclose(factor, np.triu(factor))
    assert (np.diag(factor) > 0).all()
    assert np.allclose(factor.T @ factor @ damped, np.eye(20), atol=1e-4)


def test_the_cost_of_a_column_is_one_over_the_squared_diagonal() -> None:
    """U_jj^-2 is what fixing column j one unit off costs once the columns after it have made it good."""
    hessian = correlated(10)
    h = hessian.double().numpy() + DAMPING * np.trace(hessian.double().numpy()) / 10 * np.eye(10)
    diagonal = inverse_factor(hessian, DAMPING).double().numpy().diagonal()
    for j in range(10):
        rest = h[j + 1 :, j + 1 :]
        cost = h[j, j] - (h[j, j + 1 :] @ np.linalg.solve(rest, h[j + 1 :, j]) if j < 9 else 0)
        assert diagonal[j] ** -2 == pytest.approx(cost, rel=1e-3)


@pytest.mark.parametrize("fmt", [f for f in INTEGER if f.bits <= 6], ids=lambda f: f.name)
def test_correlated_inputs_lose_less_than_by_rounding(fmt: IntegerFormat) -> None:
    weight, hessian = matrix(16, 128), correlated(128)
    ours, ranged, nearest = (
        output_error(weight, method.compress(weight, fmt, hessian), hessian)
        for method in (Gptq(), RangeSearch(), Nearest())
    )
    assert ours < 0.7 * nearest
    assert ours < 0.9 * ranged


def test_uncorrelated_inputs_are_rounded_to_nearest() -> None:
    weight, fmt = matrix(5, 64), IntegerFormat(4, 32, True)
    encoded = Gptq().compress(weight, fmt, torch.eye(64))
    scales, zeros = spread(encoded, fmt, 64)
    w = weight.numpy().astype(np.float64)
    assert np.allclose(decoded(encoded), (np.clip(np.rint(w / scales) + zeros, 0, 15) - zeros) * scales)


@pytest.mark.parametrize("fmt", INTEGER, ids=lambda f: f.name)
@pytest.mark.parametrize("dead", [slice(0, 1), slice(5, 40), slice(100, 128), slice(0, 128)])
def test_inputs_that_calibration_never_saw_are_rounded_by_themselves(fmt: IntegerFormat, dead: slice) -> None:
    hessian = correlated(128)
    hessian[dead], hessian[:, dead] = 0, 0
    weight = matrix(4, 128)
    encoded = Gptq().compress(weight, fmt, hessian)
    values = decoded(encoded)
    assert torch.isfinite(values).all()
    scales, zeros = spread(encoded, fmt, 128)
    w = weight.numpy().astype(np.float64)
    alone = (np.clip(np.rint(w / scales) + zeros, 0, fmt.levels - 1) - zeros) * scales
    assert np.allclose(values[:, dead], alone[:, dead], atol=1e-5)
    assert (values[:, dead] - weight[:, dead]).square().mean() < 0.6 * weight.square().mean()


def test_dead_inputs_do_not_change_what_the_live_ones_become() -> None:
    weight, live = matrix(4, 48), correlated(32)
    hessian = torch.zeros(48, 48)
    hessian[:32, :32] = live
    fmt = IntegerFormat(4, 16, True)
    whole = decoded(Gptq(damping=0.0).compress(weight, fmt, hessian + 1e-3 * torch.diag(hessian.diagonal())))
    alone = decoded(Gptq(damping=0.0).compress(weight[:, :32], fmt, live + 1e-3 * torch.diag(live.diagonal())))
    assert torch.equal(whole[:, :32], alone)


def test_fewer_tokens_than_inputs_give_finite_weights() -> None:
    x = torch.randn(9, 96, generator=torch.Generator().manual_seed(3))
    weight = matrix(4, 96)
    encoded = Gptq().compress(weight, IntegerFormat(3, 32, True), x.T @ x / 9)
    assert torch.isfinite(decoded(encoded)).all()
    assert decoded(encoded).abs().max() < 3 * weight.abs().max()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_hessian_that_is_not_finite_is_refused(bad: float) -> None:
    hessian = correlated(8)
    hessian[3, 3] = bad
    with pytest.raises(SlmcError, match="Hessian that is not finite"):
        Gptq().compress(matrix(2, 8), IntegerFormat(4, None, True), hessian)


def test_no_hessian_is_refused_with_a_way_out() -> None:
    with pytest.raises(SlmcError, match="gptq needs calibration; choose method nearest or range"):
        Gptq().compress(matrix(2, 8), IntegerFormat(4, None, True), None)


def test_the_weights_given_are_left_alone() -> None:
    weight, hessian = matrix(3, 40), correlated(40)
    before = weight.clone(), hessian.clone()
    Gptq().compress(weight, IntegerFormat(3, 16, False), hessian)
    assert torch.equal(weight, before[0])
    assert torch.equal(hessian, before[1])


def test_a_factor_is_computed_once_for_the_formats_of_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until another Hessian, another damping, or a change of the Hessian in place."""
    made: list[float] = []
    original = gptq._inverse_factor
    monkeypatch.setattr(gptq, "_inverse_factor", lambda h, d: made.append(d) or original(h, d))
    hessian, other = torch.eye(4), torch.eye(4)
    for _ in range(3):
        assert torch.allclose(inverse_factor(hessian, 0.0), torch.eye(4))
    assert made == [0.0]
    inverse_factor(hessian, 1.0)
    inverse_factor(other, 1.0)
    assert made == [0.0, 1.0, 1.0]
    other *= 4
    assert torch.allclose(inverse_factor(other, 0.0), torch.eye(4) / 2)
    assert made == [0.0, 1.0, 1.0, 0.0]
