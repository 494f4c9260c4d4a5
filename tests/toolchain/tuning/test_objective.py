"""What tuning minimises, worked out by hand, and the names that the command line gives it."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from toolchain.pipeline.spec import Spec
from toolchain.tuning.objective import OBJECTIVES, Objective, divergence

WANTED, GIVEN = torch.tensor([[[math.log(3.0), 0.0]] * 5] * 2), torch.zeros(2, 5, 2)
DIVERGENCE = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
"""p = (3/4, 1/4) from logits (log 3, 0), q = (1/2, 1/2): 3/4 log(3/2) + 1/4 log(1/2)."""


def test_divergence_by_hand() -> None:
    assert divergence(WANTED, GIVEN).item() == pytest.approx(DIVERGENCE, abs=1e-6)


def test_best_tokens_cost_their_surprise_beside_it() -> None:
    """The best token of p is the first; q gives it 1/2."""
    assert Objective(0.3)(WANTED, GIVEN).item() == pytest.approx(DIVERGENCE + 0.3 * math.log(2), abs=1e-6)


def test_the_distribution_alone_is_the_divergence() -> None:
    assert OBJECTIVES["distribution"](WANTED, GIVEN) == divergence(WANTED, GIVEN)


def test_every_objective_can_be_asked_for_and_falls_to_its_least_where_the_predictions_agree() -> None:
    assert set(get_args(Spec.model_fields["tune_for"].annotation)) == set(OBJECTIVES)
    for objective in OBJECTIVES.values():
        sharper = 40 * WANTED
        assert objective(sharper, sharper).item() == pytest.approx(0, abs=1e-5)
        assert objective(WANTED, GIVEN) > objective(WANTED, WANTED)
