"""Fine-tuning a classifier: phrases found in their sentences, and the scores of spans those of the model itself."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from train_classifier import batches, loss_of, nested, sentences, span_scores

from toolchain.model.classifier import Classes
from toolchain.model.spikegpt import SpikeGptClassifier, SpikeGptConfig

ROWS = [("a good film", 1), ("good", 1), ("bad film", 0), ("film", 1), ("a good", 0)]
"""Two sentences, three phrases; 'film' stands in both, and belongs to the longer one."""


@pytest.fixture
def tokenizer() -> Tokenizer:
    """One token per word: a 0, good 1, film 2, bad 3."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "good": 1, "film": 2, "bad": 3}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


@pytest.fixture
def model() -> SpikeGptClassifier:
    torch.manual_seed(2)
    model = SpikeGptClassifier(SpikeGptConfig(1, 8, 16, 4), Classes(("no", "yes"))).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0, 0.7)
    return model


def test_phrases_are_labelled_where_they_stand() -> None:
    assert nested(ROWS) == {
        "a good film": [(0, 11, 1), (0, 6, 0), (2, 6, 1), (7, 11, 1)],
        "bad film": [(0, 8, 0)],
    }


def test_spans_of_letters_become_spans_of_tokens(tokenizer: Tokenizer) -> None:
    first, second = sentences(tokenizer, ROWS, phrases=True)
    assert first.ids.tolist() == [0, 1, 2]
    assert first.spans.tolist() == [[0, 3], [0, 2], [1, 2], [2, 3]]
    assert first.labels.tolist() == [1, 0, 1, 1]
    assert second.spans.tolist() == [[0, 2]]
    assert len(sentences(tokenizer, ROWS, phrases=False)) == 5


def test_a_whole_sentence_scores_as_the_model_says_whatever_pads_its_batch(
    tokenizer: Tokenizer, model: SpikeGptClassifier
) -> None:
    batch = sentences(tokenizer, ROWS, phrases=True)
    with torch.no_grad():
        found = span_scores(model, batch)
        for row, sentence in ((0, batch[0]), (4, batch[1])):
            alone, _ = model(sentence.ids[None], model.initial_state(1))
            torch.testing.assert_close(found[row], alone[0, 0], rtol=1e-5, atol=1e-5)
        hidden, _ = model.hidden(batch[0].ids[None], model.initial_state(1))
        torch.testing.assert_close(found[2], model.classifier(hidden[0, 1]), rtol=1e-5, atol=1e-5)


def test_sentences_and_phrases_weigh_the_same(tokenizer: Tokenizer, model: SpikeGptClassifier) -> None:
    batch = sentences(tokenizer, ROWS, phrases=True)
    with torch.no_grad():
        losses = nn.functional.cross_entropy(span_scores(model, batch), torch.tensor([1, 0, 1, 1, 0]), reduction="none")
        expected = ((losses[0] + losses[4]) / 2 + losses.mean()) / 2
        torch.testing.assert_close(loss_of(model, batch), expected)


def test_an_epoch_has_every_sentence_once_and_an_order_of_its_own(tokenizer: Tokenizer) -> None:
    rows = sentences(tokenizer, ROWS, phrases=False)
    orders = [[id(s) for batch in batches(rows, 2, epoch, 0) for s in batch] for epoch in range(4)]
    assert all(sorted(order) == sorted(map(id, rows)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
