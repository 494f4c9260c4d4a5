"""The score of a classifier by hand: accuracy, expected accuracy, KL divergence."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.model.sentences import Sentences
from toolchain.quality.accuracy import ONE_MORE, ClassReference
from toolchain.quality.reference import stream_logits

OWN = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]]).log()
"""What the fp32 model says of tokens 0 to 3."""

CHANGED = torch.tensor([[0.8, 0.2], [0.5, 0.5 - 1e-6], [0.2, 0.8], [0.7, 0.3]]).log()
"""A candidate: surer of less, and of another mind about token 1."""


class Saying:
    """A classifier whose scores of a sentence are a row of a table, by its last token."""

    context = None

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        return []

    def state_specs(self) -> list[Tensor]:
        return []

    def __call__(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return self.rows[tokens[:, -1]][:, None], []


# Sentences of 2, 1, 2 and 1 tokens that end with tokens 0 to 3; labelled 0, 1, 0, 0: the third is wrong in fp32.
SENTENCES = Sentences(torch.tensor([3, 0, 1, 3, 2, 3]), (2, 3, 5, 6), torch.tensor([0, 1, 0, 0]))


def test_the_fp32_model_is_right_three_times_of_four() -> None:
    reference = ClassReference(Saying(OWN), SENTENCES)
    assert reference.accuracy == 0.75
    entropy = -(math.log(0.9) + math.log(0.6) + math.log(0.2) + math.log(0.7)) / 4
    assert reference.perplexity == pytest.approx(math.exp(entropy), rel=1e-6)


def test_a_changed_answer_costs_what_the_fp32_model_was_sure_of() -> None:
    score = ClassReference(Saying(OWN), SENTENCES).score(stream_logits(Saying(CHANGED), SENTENCES))
    whole = (0.9 + 0.6 + 0.8 + 0.7) / 4
    assert score.accuracy == 0.5
    assert score.reference_accuracy == 0.75
    assert score.relative_drop == pytest.approx((0.6 - 0.4) / 4 / whole, rel=1e-5)
    assert score.standard_error == pytest.approx(math.sqrt(0.2**2 + ONE_MORE**2) / 4 / whole, rel=1e-5)
    kl = (0.9 * math.log(0.9 / 0.8) + 0.1 * math.log(0.1 / 0.2) + 0.4 * math.log(0.4 / 0.5) + 0.6 * math.log(1.2)) / 4
    assert score.kl_mean == pytest.approx(kl, rel=1e-3)
    assert score.top1_agreement == 0.75
    assert score.tokens == 4
    # Differences -1, 0, 0, 0 of mean -1/4: squares that sum to 3/4, and one more.
    assert score.accuracy_error == pytest.approx(math.sqrt(3 / 4 + 1) / 4)


def test_the_same_model_loses_nothing_but_is_not_believed_to_the_last() -> None:
    score = ClassReference(Saying(OWN), SENTENCES).score(stream_logits(Saying(OWN), SENTENCES))
    assert (score.relative_drop, score.kl_mean, score.top1_agreement) == (0.0, 0.0, 1.0)
    assert score.standard_error > 0


def test_labels_are_needed_and_finite_scores() -> None:
    with pytest.raises(SlmcError, match="no labels"):
        ClassReference(Saying(OWN), Sentences(torch.tensor([1]), (1,)))
    with pytest.raises(SlmcError, match="overflows"):
        ClassReference(Saying(OWN * math.nan), SENTENCES)
