"""The joint pass against the definition: fix a column, then solve the normal equations for all that are still free."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from weights import decoded, problem

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Encoded, Format
from exporters.formats.catalog import format_named
from exporters.formats.decomposed import INLIERS, OUTLIERS, DecomposedFormat
from exporters.formats.float4 import STEPS, Float4Format
from exporters.formats.integer import IntegerFormat
from exporters.formats.nm import NmFormat
from toolchain.compress.catalog import compress
from toolchain.compress.gptq import Gptq
from toolchain.compress.joint import Layout, compress_jointly, layout_of, prune
from toolchain.compress.masks import best_mask
from toolchain.compress.recipe import LayerConfig

Float64 = NDArray[np.float64]
JOINT = [
    "2:4/int4-g16", "2:4/int3", "4:8/int4-g32", "6:8/int2-g16", "5:16/int4-g64", "2:4x16/int4-g16", "4:8x16/int8",
    "fp4-g16", "2:4/fp4-g16", "1:8/int8+6:8/fp4-g16", "1:4/int8+2:4/int3-g32",
]  # fmt: skip


def named(name: str) -> Format:
    fmt = format_named(name)
    assert isinstance(fmt, NmFormat | DecomposedFormat | Float4Format)
    return fmt


def output_error(weight: Tensor, encoded: Encoded, hessian: Tensor) -> float:
    error = (decoded(encoded) - weight).double()
    return float((error @ hessian.double() * error).sum())


def parts(fmt: Format, encoded: Encoded) -> list[tuple[IntegerFormat | Float4Format, Float64]]:
    """The values of every part, and its stored scales for every weight, [rows, cols]."""
    if isinstance(fmt, DecomposedFormat):
        return [
            (part.values, parts(part, fmt.part(encoded, prefix))[0][1])
            for prefix, part in ((OUTLIERS, fmt.outliers), (INLIERS, fmt.inliers))
        ]
    values = fmt.values if isinstance(fmt, NmFormat) else fmt
    assert isinstance(values, IntegerFormat | Float4Format)
    cols = encoded.shape[1]
    scales = np.repeat(encoded.packed["scales"].astype(np.float64), values.group or cols, 1)[:, :cols]
    return [(values, scales)]


def nearest(weights: Float64, scales: Float64, values: IntegerFormat | Float4Format) -> Float64:
    """The storable value next to each weight, by trying all."""
    steps = np.arange(values.levels) - values.default_zero if isinstance(values, IntegerFormat) else np.unique(STEPS)
    tried = steps[:, None] * scales
    best: Float64 = np.take_along_axis(tried, np.abs(tried - weights).argmin(0)[None], 0)[0]
    return best


def slow(weight: Float64, hessian: Float64, fmt: Format, encoded: Encoded) -> Float64:
    """Column by column on the stored grids; with Q fixed on S, the free columns are W_F - (Q - W)_S H_SF H_FF^-1."""
    cols = weight.shape[1]
    layout = layout_of(fmt)
    h = hessian + Gptq.damping * np.trace(hessian) / cols * np.eye(cols)
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    fixed, kinds = np.zeros_like(weight), np.zeros(weight.shape, np.int8)
    for j in range(cols):
        free = weight[:, j:].copy()
        if j:
            error = fixed[:, :j] - weight[:, :j]
            free -= np.linalg.solve(h[j:, j:], (error @ h[:j, j:]).T).T
        if j % layout.period == 0:
            period = free[:, : layout.period]
            score = period**2 / np.diag(upper)[j : j + period.shape[1]] ** 2
            kinds[:, j : j + period.shape[1]] = layout.kinds(torch.from_numpy(score)).numpy()
        for number, (values, scales) in enumerate(parts(fmt, encoded), 1):
            mine = kinds[:, j] == number
            fixed[mine, j] = nearest(free[mine, 0], scales[mine, j], values)
    return fixed


@pytest.mark.parametrize("name", JOINT)
@pytest.mark.parametrize("cols", [5, 48])
def test_agrees_with_the_explicit_least_squares(name: str, cols: int) -> None:
    weight, hessian = problem(20, cols)
    encoded = compress_jointly(weight, named(name), hessian)
    expected = slow(weight.double().numpy(), hessian.double().numpy(), named(name), encoded)
    # float32 against float64: a value within a rounding error of a half may fall to either side, and few do.
    wrong = np.abs(decoded(encoded).numpy() - expected) > 1e-4
    assert wrong.mean() < 0.01


def test_more_columns_than_a_block() -> None:
    weight, hessian = problem(4, 200)
    encoded = compress_jointly(weight, named("2:4/int4-g64"), hessian)
    expected = slow(weight.double().numpy(), hessian.double().numpy(), named("2:4/int4-g64"), encoded)
    assert (np.abs(decoded(encoded).numpy() - expected) > 1e-4).mean() < 0.02


@pytest.mark.parametrize("name", JOINT)
def test_feedback_halves_the_error_of_nearest_rounding(name: str) -> None:
    weight, hessian = problem(32, 128, seed=3)
    with_feedback = output_error(weight, compress(weight, LayerConfig(name, "gptq"), hessian), hessian)
    without = output_error(weight, compress(weight, LayerConfig(name, "nearest"), None), hessian)
    assert with_feedback < 0.6 * without


@pytest.mark.parametrize(
    ("name", "kept", "of"), [("2:4/int4-g16", 2, 4), ("6:8/int8", 6, 8), ("2:4x16/int4-g16", 2, 4)]
)
def test_the_pattern_is_kept(name: str, kept: int, of: int) -> None:
    weight, hessian = problem(32, 64)
    nonzero = decoded(compress_jointly(weight, named(name), hessian)).view(32, -1, of) != 0
    assert int(nonzero.sum(-1).max()) <= kept
    if "x16" in name:
        shared = nonzero.view(2, 16, -1, of).any(1)
        assert int(shared.sum(-1).max()) <= kept


def test_pruning_alone_agrees_with_the_explicit_least_squares() -> None:
    """SparseGPT with a given mask: every column in turn is set to zero or left as it is when it is reached."""
    weight, hessian = problem(4, 24)
    kinds = best_mask(weight.abs(), 2, 4).to(torch.int8)
    pruned = prune(weight, Layout((2,), (None,), 4), hessian, kinds)
    h = hessian.double().numpy() + Gptq.damping * np.trace(hessian.double().numpy()) / 24 * np.eye(24)
    w, fixed = weight.double().numpy(), np.zeros((4, 24))
    for j in range(24):
        free = w[:, j:].copy()
        if j:
            free -= np.linalg.solve(h[j:, j:], ((fixed[:, :j] - w[:, :j]) @ h[:j, j:]).T).T
        fixed[:, j] = np.where(kinds[:, j].numpy() == 1, free[:, 0], 0)
    assert np.abs(pruned.numpy() - fixed).max() < 1e-4


def test_given_kinds_are_used() -> None:
    weight, hessian = problem(3, 8)
    kinds = torch.tensor([[1, 1, 0, 0, 0, 1, 0, 1]] * 3, dtype=torch.int8)
    out = decoded(compress_jointly(weight, named("2:4/int8"), hessian, kinds))
    assert (out[kinds == 0] == 0).all()
    assert (out[kinds == 1] != 0).all()


def test_sdq_by_hand() -> None:
    """Two of four: the largest becomes an int8 outlier, the next an fp4 inlier; H = I moves nothing.

    The outlier -12.7 on scale 12.7 / 128; the inlier 1.5 is its group's only weight and the top of its grid.
    """
    fmt = named("1:4/int8+1:4/fp4-g16")
    weight = torch.tensor([[1.5, 0.1, -12.7, 0.2]])
    encoded = compress_jointly(weight, fmt, torch.eye(4))
    values = decoded(encoded)[0]
    assert values[1] == values[3] == 0
    assert values[0].item() == pytest.approx(1.5, rel=1e-3)
    assert values[2].item() == pytest.approx(-12.7, rel=5e-3)


def test_an_overflowing_hessian() -> None:
    with pytest.raises(SlmcError, match="not finite"):
        compress_jointly(torch.ones(2, 4), named("2:4/int4-g16"), torch.full((4, 4), float("inf")))
