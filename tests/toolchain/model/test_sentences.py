"""Tables of sentences: both layouts, and what is wrong with a line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from exporters.errors import SlmcError
from toolchain.model.sentences import Sentences
from toolchain.model.text import read_sentences

WORDS = ("good", "bad", "film", "a", "very")
LABELS = ("negative", "positive")


@pytest.fixture
def tokenizer() -> Tokenizer:
    """One token per word, numbered as in WORDS."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def _read(
    folder: Path, tokenizer: Tokenizer, content: str, name: str = "x.tsv", context: int | None = None
) -> Sentences:
    file = folder / name
    file.write_text(content, encoding="utf-8")
    found = read_sentences(file, tokenizer, LABELS, context).sentences
    assert found is not None
    return found


@pytest.mark.parametrize(
    "content",
    [
        "sentence\tlabel\na good film\t1\nbad\t0\n",
        "label\tcontent\n1\ta good film\n\n0\tbad\n",
        "Label\tsentence\npositive\ta good film\nnegative\tbad\n",
        "1\ta good film\n0\tbad\n",
    ],
)
def test_layouts(tmp_path: Path, tokenizer: Tokenizer, content: str) -> None:
    found = _read(tmp_path, tokenizer, content)
    assert [ids.tolist() for ids in found.each()] == [[3, 0, 2], [1]]
    assert found.labels is not None
    assert found.labels.tolist() == [1, 0]
    assert len(found) == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("sentence\tlabel\na good film\t1\nbad\n", "line 3 has 1 columns"),
        ("sentence\tlabel\na\tgood\t1\n", "line 2 has 3 columns"),
        ("sentence\tlabel\ngood\t2\n", r"line 2 has the label '2'; the model's classes are 0 \(negative\), 1 \(posi"),
        ("sentence\tlabel\ngood\t\n", "line 2 has the label ''"),
        ("sentence\tlabel\n  \t1\n", "line 2 has an empty sentence"),
        ("sentence\tlabel\n", "no sentences in it"),
        ("good film\t1\n", "line 1 has the label 'good film'"),
        ("sentence\tlabel\na very very good film\t1\n", "line 2 has 5 tokens, and the model reads 4"),
    ],
)
def test_wrong_lines(tmp_path: Path, tokenizer: Tokenizer, content: str, words: str) -> None:
    with pytest.raises(SlmcError, match=words):
        _read(tmp_path, tokenizer, content, context=4)


def test_plain_lines_have_no_labels(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(SlmcError, match="no labels in it"):
        _read(tmp_path, tokenizer, "a good film\nbad\n", "x.txt")
    found = read_sentences(tmp_path / "x.txt", tokenizer, LABELS, labelled=False).sentences
    assert found is not None
    assert found.labels is None
    assert found.ends == (3, 4)


def test_batches_are_of_one_length_and_hold_every_sentence_once() -> None:
    found = Sentences(torch.arange(12), (3, 4, 7, 8, 11, 12), torch.tensor([0, 1, 0, 1, 0, 1]))
    batches = [batch.tolist() for batch in found.batches(2)]
    assert batches == [[1, 3], [5], [0, 2], [4]]
    assert found.stacked(torch.tensor([0, 2])).tolist() == [[0, 1, 2], [4, 5, 6]]


def test_the_head_of_sentences_is_whole_ones_and_one_at_least() -> None:
    found = Sentences(torch.arange(6), (3, 4, 6), torch.tensor([0, 1, 0]))
    assert found.head(5).ends == (3, 4)
    assert found.head(1).ends == (3,)
    labels = found.head(5).labels
    assert labels is not None
    assert labels.tolist() == [0, 1]
