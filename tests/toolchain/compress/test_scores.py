"""Every score of the catalogue against numbers worked out by hand on a 2 x 2 matrix."""

from __future__ import annotations

import math

import pytest
import torch

from exporters.artifact.errors import SlmcError
from toolchain.compress.scores import SCORES, Channels, ESparse, score_named

WEIGHT = torch.tensor([[3.0, -1.0], [1.0, 2.0]])
CHANNELS = Channels(square=torch.tensor([4.0, 1.0]), entropy=torch.tensor([0.5, 1.5]))

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
def test_by_hand(score: object) -> None:
    named = score_named(score.name)  # type: ignore[attr-defined]
    assert torch.allclose(named(WEIGHT, CHANNELS), torch.tensor(BY_HAND[named.name]))


def test_alpha_weighs_the_norm_against_the_entropy() -> None:
    assert ESparse(alpha=0.0)(WEIGHT, CHANNELS).tolist() == [[1.5, 1.5], [0.5, 3.0]]


def test_an_empty_row_and_column_score_zero() -> None:
    scores = score_named("ria")(torch.zeros(2, 2), CHANNELS)
    assert scores.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_esparse_without_entropies() -> None:
    with pytest.raises(SlmcError, match="entropy of the input channels"):
        ESparse()(WEIGHT, Channels(CHANNELS.square))


def test_unknown_score() -> None:
    with pytest.raises(SlmcError, match="allowed are magnitude, wanda, ria, esparse"):
        score_named("taylor")
