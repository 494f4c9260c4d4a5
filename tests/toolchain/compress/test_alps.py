"""ALPS: exact least squares for a mask, and a mask close to the best of all."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from weights import problem

from toolchain.compress.alps import Alps, damped, solve_masked
from toolchain.compress.layer_statistics import LayerStatistics
from toolchain.compress.masks import best_mask
from toolchain.compress.scores import Wanda


def error(weight: Tensor, pruned: Tensor, h: Tensor) -> float:
    e = (pruned - weight).double()
    return float((e @ h.double() * e).sum())


def exact(weight: Tensor, mask: Tensor, h: Tensor) -> Tensor:
    """Row by row: B_S = W H_:S H_SS^-1."""
    out = torch.zeros_like(weight, dtype=torch.float64)
    for r in range(len(weight)):
        kept = mask[r].nonzero()[:, 0]
        out[r, kept] = torch.linalg.solve(h[kept][:, kept], (weight[r].double() @ h[:, kept]))
    return out


@pytest.mark.parametrize(("keep", "of", "cols"), [(2, 4, 16), (4, 8, 24), (6, 8, 32)])
def test_conjugate_gradients_reach_the_least_squares_solution(keep: int, of: int, cols: int) -> None:
    weight, hessian = problem(5, cols, cols, tokens=2000)
    h = damped(hessian, 0.01)
    mask = best_mask(Wanda()(weight, LayerStatistics(hessian)), keep, of)
    expected = exact(weight, mask, h)
    solved = solve_masked(weight, mask, h, iterations=100)
    assert (solved.double() - expected).abs().max() < 1e-4
    ten = error(weight, solve_masked(weight, mask, h), h)
    assert ten <= 1.05 * error(weight, expected, h)
    assert (solved[~mask] == 0).all()


def best_of_all(weight: Tensor, h: Tensor, keep: int, of: int) -> float:
    """The least error of one row over every mask, each with its exact weights."""
    patterns = list(itertools.combinations(range(of), keep))
    least = float("inf")
    for choice in itertools.product(patterns, repeat=weight.shape[1] // of):
        mask = torch.zeros(1, weight.shape[1], dtype=torch.bool)
        for g, kept in enumerate(choice):
            mask[0, [g * of + k for k in kept]] = True
        least = min(least, error(weight, exact(weight, mask, h), h))
    return least


@pytest.mark.parametrize("seed", range(4))
def test_the_mask_is_near_the_best_of_all(seed: int) -> None:
    """Two groups of 2:4, 36 masks: at most a quarter above the best, and better than Wanda's in the sum of seeds."""
    weight, hessian = problem(1, 8, seed, tokens=2000)
    h = damped(hessian, 0.01)
    found = error(weight, exact(weight, Alps().mask(weight, hessian, 2, 4), h), h)
    assert found <= 1.25 * best_of_all(weight, h, 2, 4)


def test_better_than_wanda_with_the_same_weights_solved() -> None:
    weight, hessian = problem(16, 64, 9, tokens=2000)
    h = damped(hessian, 0.01)
    wanda = best_mask(Wanda()(weight, LayerStatistics(hessian)), 2, 4)
    alps = Alps().mask(weight, hessian, 2, 4)
    assert alps.sum() == wanda.sum()
    assert error(weight, exact(weight, alps, h), h) < 0.9 * error(weight, exact(weight, wanda, h), h)


def test_unseen_channels_do_no_harm() -> None:
    weight, hessian = problem(3, 8, 1, tokens=2000)
    hessian[:, 2] = hessian[2] = 0
    mask = Alps().mask(weight, hessian, 2, 4)
    assert torch.isfinite(solve_masked(weight, mask, damped(hessian, 0.01))).all()
