"""Coordinate descent against brute force: no other code of one weight is better, and what it ends with is near the best
of all codes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from weights import decoded, problem

from exporters.artifact.errors import SlmcError
from exporters.formats.catalog import format_named
from exporters.formats.decomposed import DecomposedFormat
from exporters.formats.float4 import Float4Format
from exporters.formats.integer import IntegerFormat
from exporters.formats.nm import NmFormat
from toolchain.compress.alps import damped
from toolchain.compress.catalog import compress
from toolchain.compress.descent import Descent, best_scales, descend_jointly, sweep
from toolchain.compress.gptq import Gptq
from toolchain.compress.joint import compress_jointly
from toolchain.compress.recipe import LayerConfig


def loss(weight: Tensor, values: Tensor, hessian: Tensor) -> Tensor:
    """(W - Q) H (W - Q)^T of every row, [rows]."""
    error = (values - weight).double()
    return ((error @ hessian.double()) * error).sum(1)


def test_no_other_value_of_one_weight_is_better() -> None:
    """On the grid -1, 0, 1, 2, over more columns than one block has."""
    weight, hessian = problem(3, 150)
    grid = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    values = weight.round().clamp(-1, 2)
    residual = (weight - values) @ hessian
    before = loss(weight, values, hessian)

    def fix(_at: int, column: Tensor) -> Tensor:
        return column.round().clamp(-1, 2)

    for _ in range(40):
        sweep(values, residual, hessian, fix)
        after = loss(weight, values, hessian)
        assert (after <= before * (1 + 1e-6)).all()
        before = after
    assert torch.allclose(residual, (weight - values) @ hessian, atol=1e-3)
    for j, value in itertools.product(range(150), grid):
        other = values.clone()
        other[:, j] = value
        assert (loss(weight, other, hessian) >= before * (1 - 1e-5)).all(), (j, value)


def test_near_the_best_of_all_codes() -> None:
    """Eight rows of six weights in two bits, one given scale: brute force over all 4^6 codes."""
    weight, hessian = problem(8, 6)
    grid = torch.tensor(list(itertools.product((-2.0, -1.0, 0.0, 1.0), repeat=6)))
    best = torch.stack([loss(row.expand_as(grid), grid, hessian).min() for row in weight])
    values = weight.round().clamp(-2, 1)
    nearest = loss(weight, values, hessian).sum()
    residual = (weight - values) @ hessian
    for _ in range(4):
        sweep(values, residual, hessian, lambda _at, column: column.round().clamp(-2, 1))
    found = loss(weight, values, hessian)
    assert (found >= best * (1 - 1e-6)).all()
    assert (found.sum() - best.sum()) < 0.5 * (nearest - best.sum())


def test_scales_are_those_of_least_squares() -> None:
    """Two groups of three, visited until nothing moves: numpy's least squares of both scales, as float16."""
    weight, hessian = problem(1, 6)
    steps = torch.tensor([[1.0, -2.0, 0.0, 1.0, 1.0, -1.0]])
    scales = torch.tensor([[1.0, 0.5]])
    for _ in range(50):
        values = steps * scales.repeat_interleave(3, 1)
        scales = best_scales(steps, scales, (weight - values) @ hessian, hessian, 3)
    columns = np.zeros((6, 2))
    columns[:3, 0], columns[3:, 1] = steps[0, :3].numpy(), steps[0, 3:].numpy()
    factor = np.linalg.cholesky(hessian.double().numpy()).T
    expected = np.linalg.lstsq(factor @ columns, factor @ weight[0].double().numpy(), rcond=None)[0]
    assert scales[0].numpy() == pytest.approx(expected, rel=2e-3)
    assert torch.equal(scales, scales.half().float())


def test_scales_keep_the_residual_and_groups_without_weights() -> None:
    weight, hessian = problem(2, 8)
    steps = torch.tensor([[1.0, -1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0]]).repeat(2, 1)
    scales = torch.full((2, 2), 0.25)
    residual = (weight - steps * scales.repeat_interleave(4, 1)) @ hessian
    fitted = best_scales(steps, scales, residual, hessian, 4)
    assert (fitted[:, 1] == 0.25).all() and (fitted[:, 0] != 0.25).all()
    assert torch.allclose(residual, (weight - steps * fitted.repeat_interleave(4, 1)) @ hessian, atol=1e-4)


@pytest.mark.parametrize("name", ["int2-g32", "int3-g64", "uint2-g32", "int4", "uint4-g128"])
def test_descent_loses_less_than_gptq(name: str) -> None:
    weight, hessian = problem(16, 200)
    fmt = format_named(name)
    assert isinstance(fmt, IntegerFormat)
    h = damped(hessian, Descent().damping)
    before = loss(weight, decoded(Gptq().compress(weight, fmt, hessian)), h).sum()
    after = loss(weight, decoded(Descent().compress(weight, fmt, hessian)), h).sum()
    assert after < 0.95 * before
    assert torch.allclose(
        loss(weight, decoded(Descent(sweeps=0).compress(weight, fmt, hessian)), h).sum(), before, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "share"),
    [("2:4/int4-g16", 0.9), ("4:8/int4-g32", 0.9), ("4:8x16/int8", 0.9), ("5:16/int4-g64", 0.9), ("2:4/fp4-g16", 0.9),
     ("fp4-g16", 0.95), ("1:8/int8+6:8/fp4-g16", 0.9), ("1:4/int8+2:4/int3-g32", 0.9)],
)  # fmt: skip
def test_jointly_it_loses_less_than_one_pass(name: str, share: float) -> None:
    """What is stored keeps the format's pattern: decoding says so, since a format can store nothing else."""
    weight, hessian = problem(32, 136)
    fmt = format_named(name)
    assert isinstance(fmt, NmFormat | DecomposedFormat | Float4Format)
    h = damped(hessian, Gptq.damping)
    before = loss(weight, decoded(compress_jointly(weight, fmt, hessian)), h).sum()
    encoded = compress(weight, LayerConfig(name, "descent"), hessian)
    assert encoded.format == name
    assert loss(weight, decoded(encoded), h).sum() < share * before
    if isinstance(fmt, NmFormat):
        assert ((decoded(encoded) != 0) <= torch.from_numpy(fmt.mask(encoded))).all()


def test_without_sweeps_a_format_that_prunes_nothing_is_the_joint_pass() -> None:
    weight, hessian = problem(4, 48)
    fmt = format_named("fp4-g16")
    assert isinstance(fmt, Float4Format)
    assert torch.equal(
        decoded(descend_jointly(weight, fmt, hessian, sweeps=0)), decoded(compress_jointly(weight, fmt, hessian))
    )


def test_it_needs_calibration() -> None:
    fmt = format_named("int4-g64")
    assert isinstance(fmt, IntegerFormat)
    with pytest.raises(SlmcError, match="descent needs calibration"):
        Descent().compress(torch.ones(2, 4), fmt, None)
