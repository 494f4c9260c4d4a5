"""Every score of the catalogue against numbers worked out by hand on a 2 x 2 matrix."""

from __future__ import annotations

import math

import pytest
import torch

from exporters.artifact.errors import SlmcError
from toolchain.compress.layer_statistics import LayerStatistics
from toolchain.compress.scores import SCORES, ESparse, PruningMetric, Ria, Wanda

WEIGHT = torch.tensor([[3.0, -1.0], [1.0, 2.0]])
STATISTICS = LayerStatistics(hessian=torch.tensor([[4.0, 0.5], [0.5, 1.0]]), entropy=torch.tensor([0.5, 1.5]))

BY_HAND = {
    "magnitude": [[3.0, 1.0], [1.0, 2.0]],
    "wanda": [[6.0, 1.0], [2.0, 2.0]],  # norms 2 and 1
    # column sums 4 and 3, row sums 4 and 3; norms to the power 1/2: sqrt 2 and 1
    "ria": [
        [(3 / 4 + 3 / 4) * math.sqrt(2), 1 / 3 + 1 / 4],
        [(1 / 4 + 1 / 3) * math.sqrt(2), 2 / 3 + 2 / 3],
    ],
    "esparse": [[3 * (0.5 + 2), 1.5 + 1], [0.5 + 2, 2 * (1.5 + 1)]],
}


@pytest.mark.parametrize("score", SCORES, ids=lambda s: s.name)
def test_by_hand(score: PruningMetric) -> None:
    assert torch.allclose(score(WEIGHT, STATISTICS), torch.tensor(BY_HAND[score.name]))


def test_alpha_weighs_the_norm_against_the_entropy() -> None:
    assert ESparse(alpha=0.0)(WEIGHT, STATISTICS).tolist() == [[1.5, 1.5], [0.5, 3.0]]


def test_an_empty_row_and_column_score_zero() -> None:
    scores = Ria()(torch.zeros(2, 2), STATISTICS)
    assert scores.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_esparse_without_entropies() -> None:
    with pytest.raises(SlmcError, match="entropy of the input channels"):
        ESparse()(WEIGHT, LayerStatistics(STATISTICS.hessian))


def test_wanda_without_calibration() -> None:
    with pytest.raises(SlmcError, match="wanda needs calibration"):
        Wanda()(WEIGHT, LayerStatistics())


def test_statistics_in_another_channel_order() -> None:
    found = STATISTICS.reordered(torch.tensor([1, 0]))
    assert found.hessian is not None and found.hessian.tolist() == [[1.0, 0.5], [0.5, 4.0]]
    assert found.entropy is not None and found.entropy.tolist() == [1.5, 0.5]
    assert LayerStatistics().reordered(torch.tensor([1, 0])) == LayerStatistics()
