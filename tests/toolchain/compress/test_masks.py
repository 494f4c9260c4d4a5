"""N:M masks against a search of all masks, by hand, and with rows that share their pattern."""

from __future__ import annotations

import itertools

import pytest
import torch

from exporters.artifact.errors import SlmcError
from toolchain.compress.masks import best_mask


def random_scores(rows: int, cols: int) -> torch.Tensor:
    return torch.rand(rows, cols, generator=torch.Generator().manual_seed(rows * 1000 + cols))


def test_by_hand() -> None:
    score = torch.tensor([[4.0, 1.0, 3.0, 2.0], [1.0, 1.0, 1.0, 5.0]])
    assert best_mask(score, 2, 4).tolist() == [[True, False, True, False], [True, False, False, True]]


@pytest.mark.parametrize(("keep", "of"), [(1, 4), (2, 4), (3, 4), (4, 8), (6, 8)])
def test_no_other_mask_keeps_more(keep: int, of: int) -> None:
    score = random_scores(3, 2 * of)
    mask = best_mask(score, keep, of)
    for row in range(3):
        for start in (0, of):
            part = score[row, start : start + of]
            most = max(float(part[list(kept)].sum()) for kept in itertools.combinations(range(of), keep))
            assert float(part[mask[row, start : start + of]].sum()) == pytest.approx(most)
            assert int(mask[row, start : start + of].sum()) == keep


def test_a_short_last_group_keeps_its_best() -> None:
    mask = best_mask(torch.tensor([[1.0, 2.0, 3.0, 4.0, 1.0, 9.0, 5.0]]), 2, 4)
    assert mask.tolist() == [[False, False, True, True, False, True, True]]
    assert best_mask(torch.ones(1, 5), 2, 4).tolist() == [[True, True, False, False, True]]


def test_shared_rows_use_the_pattern_of_their_sum() -> None:
    score = torch.tensor([[9.0, 0.0, 0.0, 1.0], [0.0, 5.0, 6.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    mask = best_mask(score, 2, 4, shared_rows=2)
    assert mask[0].tolist() == mask[1].tolist() == [True, False, True, False]
    assert mask[2].tolist() == [False, False, True, True]  # a last, smaller set of rows


@pytest.mark.parametrize(("keep", "of"), [(0, 4), (4, 4), (5, 4)])
def test_impossible_patterns(keep: int, of: int) -> None:
    with pytest.raises(SlmcError, match="between 1 and 3 of 4"):
        best_mask(torch.ones(1, 4), keep, of)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_scores_that_mean_nothing(bad: float) -> None:
    with pytest.raises(SlmcError, match="finite and not negative"):
        best_mask(torch.tensor([[1.0, bad, 1.0, 1.0]]), 2, 4)
