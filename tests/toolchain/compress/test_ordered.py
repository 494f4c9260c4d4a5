"""Pruning in order, worked by hand: E-Sparse's score and shuffle of one row, and what stands in the original order."""

from __future__ import annotations

import math

import pytest
import torch

from exporters.artifact.errors import SlmcError
from toolchain.compress.layer_statistics import LayerStatistics
from toolchain.compress.ordered import ORDERED, Ordered, ordered_named, shuffled
from toolchain.compress.permutation import kept_score

FALLING = torch.tensor([[8.0, 7, 6, 5, 4, 3, 2, 1]])


def test_the_shuffle_by_hand() -> None:
    """Dealt to and fro over two groups: 8 5 4 1 and 7 6 3 2, which keep 13 each of 2:4: all of the best four, so that
    no swap helps. Without, 8 7 and 4 3 stay: 22."""
    order = shuffled(FALLING, 2, 4)
    assert order.tolist() == [0, 3, 4, 7, 1, 2, 5, 6]
    assert kept_score(FALLING, 2, 4) == 22
    assert kept_score(FALLING[:, order], 2, 4) == 26


def test_esparse_with_shuffle_by_hand() -> None:
    """Score |w| (entropy + rms). The inputs' rms is 1, and entropy 3 makes the last channel's score 4 x 2 = 8.

    Scores 8 7 6 5 4 3 2 8: sorted 0 7 1 2 3 4 5 6 (of equal ones the first), dealt 0 | 7, 1 left to 7's group, and so
    on: groups {0, 2, 3, 6} and {7, 1, 4, 5}, which keep 8 6 and 8 7.
    """
    weight = torch.tensor([[8.0, -7, 6, 5, 4, 3, 2, -2]])
    entropy = torch.tensor([0.0, 0, 0, 0, 0, 0, 0, 3])
    statistics = LayerStatistics(torch.eye(8), entropy)
    pruned = ordered_named("esparse-shuffle").prune(weight, 2, 4, statistics)
    assert pruned.tolist() == [[8.0, -7, 6, 0, 0, 0, 0, -2]]


def test_ria_with_permutation_keeps_all_of_the_largest() -> None:
    """Equal inputs; column sums cancel in |w| / colsum, so that only |w| / rowsum ranks: the four largest stay."""
    pruned = ordered_named("ria-permutation").prune(FALLING, 2, 4, LayerStatistics(torch.eye(8)))
    assert pruned.tolist() == [[8.0, 7, 6, 5, 0, 0, 0, 0]]


@pytest.mark.parametrize("ordered", ORDERED, ids=lambda o: o.name)
@pytest.mark.parametrize(("keep", "of"), [(2, 4), (6, 8)])
def test_more_of_the_score_stays_than_without_an_order(ordered: Ordered, keep: int, of: int) -> None:
    generator = torch.Generator().manual_seed(1)
    size = torch.linspace(3, 0.1, 64)
    weight = torch.randn(16, 64, generator=generator) * size
    statistics = LayerStatistics(torch.diag(size.square()), torch.rand(64, generator=generator))
    score = ordered.scored.scores(weight, statistics)
    kept = float(score[ordered.prune(weight, keep, of, statistics) != 0].sum())
    plain = float(score[ordered.scored.prune(weight, keep, of, statistics) != 0].sum())
    assert kept > 1.005 * plain
    pruned = ordered.prune(weight, keep, of, statistics)
    assert math.isclose(float((pruned != 0).float().mean()), keep / of)
    assert torch.equal(pruned[pruned != 0], weight[pruned != 0])


def test_an_unknown_name() -> None:
    with pytest.raises(
        SlmcError, match="unknown permuted pruning method 'wanda'; allowed are esparse-shuffle, ria-permutation"
    ):
        ordered_named("wanda")
