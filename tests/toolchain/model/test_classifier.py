"""Classifiers: pooling by hand, chunks as one text, and what a checkpoint must say of its classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from exporters.states import StateSpec
from toolchain.model.classifier import POOLINGS, Classes, Classifier, classes_of
from toolchain.model.spikegpt import SpikeGptClassifier, SpikeGptConfig

HIDDEN = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [5.0, 1.0]]])
"""What three tokens say, [1, 3, 2]."""


class Plain(nn.Module):
    """A backbone that says HIDDEN by token and carries nothing."""

    context = None

    def state_specs(self) -> list[StateSpec]:
        return []

    def hidden(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return HIDDEN[0][tokens], state


class PlainClassifier(Classifier, Plain):
    """Two classes whose scores are the two pooled values."""

    def __init__(self, pooling: str) -> None:
        super().__init__()
        self.classify(Classes(("no", "yes"), pooling), 2)
        self.classifier.weight = nn.Parameter(torch.eye(2))


@pytest.mark.parametrize(("pooling", "expected"), [("mean", [3.0, 3.0]), ("last", [5.0, 1.0]), ("first", [1.0, 2.0])])
def test_pooling_by_hand_in_one_call_and_in_every_two_chunks(pooling: str, expected: list[float]) -> None:
    model = PlainClassifier(pooling)
    empty = [torch.zeros(1, *s.shape) for s in model.state_specs()]
    for cut in range(3):
        state = empty
        for piece in ([0, 1, 2][:cut], [0, 1, 2][cut:]):
            if piece:
                scores, state = model(torch.tensor([piece]), state)
        assert scores.tolist() == [[expected]]


def test_a_mean_is_of_the_tokens_that_the_mask_names_or_of_all() -> None:
    model, tokens = PlainClassifier("mean"), torch.tensor([[0, 1, 2], [1, 2, 2]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    state = [torch.zeros(2, *s.shape) for s in model.state_specs()]
    assert model(tokens, state, mask)[0].tolist() == [[[3.0, 3.0]], [[3.0, 6.0]]]
    assert model(tokens, state)[0][1, 0].tolist() == pytest.approx([13 / 3, 8 / 3])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_spikegpt_says_the_same_token_by_token_as_in_one_call(pooling: str) -> None:
    torch.manual_seed(1)
    model = SpikeGptClassifier(SpikeGptConfig(2, 16, 32, 20), Classes(("a", "b", "c"), pooling)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.7)
    tokens = torch.randint(20, (1, 9))
    with torch.no_grad():
        whole, _ = model(tokens, model.initial_state(1))
        state = model.initial_state(1)
        for token in tokens[0]:
            scores, state = model(token.view(1, 1), state)
    assert whole.shape == (1, 1, 3)
    assert whole.abs().max() > 0.1
    torch.testing.assert_close(scores, whole, rtol=1e-5, atol=1e-5)


def test_an_encoder_carries_nothing() -> None:
    model = PlainClassifier("mean")
    model.whole_texts = True
    assert model.state_specs() == []
    assert model(torch.tensor([[0, 1, 2]]), [])[0].tolist() == [[[3.0, 3.0]]]


def test_classes_of_a_checkpoint() -> None:
    shapes = {"classifier.weight": (2, 8)}
    assert classes_of({}, {}) is None
    assert classes_of(shapes, {}) == Classes(("0", "1"))
    assert classes_of(shapes, {"labels": ["no", "yes"], "pooling": "last"}) == Classes(("no", "yes"), "last")
    named = {"id2label": {"0": "no", "1": "yes"}}
    assert classes_of({**shapes, "classifier.bias": (2,)}, named) == Classes(("no", "yes"), "mean", True)


@pytest.mark.parametrize(
    ("shape", "config", "words"),
    [
        (None, {"labels": ["no", "yes"]}, "no classifier.weight"),
        ((1, 8), {}, "two classes or more"),
        ((2, 8), {"pooling": "max"}, "allowed are mean, last, first"),
        ((2, 8), {"labels": ["a", "b", "c"]}, "3 labels, but classifier.weight has 2 rows"),
        ((2, 8), {"labels": ["a", "a"]}, "different names"),
        ((2, 8), {"labels": [0, 1]}, "different names"),
        ((2, 8), {"labels": "ab"}, "different names"),
    ],
)
def test_a_checkpoint_that_contradicts_itself(shape: tuple[int, ...] | None, config: dict, words: str) -> None:
    with pytest.raises(SlmcError, match=words):
        classes_of({} if shape is None else {"classifier.weight": shape}, config)
