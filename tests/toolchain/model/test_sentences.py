"""Tables of sentences: both layouts, and what is wrong with a line."""

from __future__ import annotations

import csv
import io
import itertools
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from exporters.artifact.errors import SlmcError
from toolchain.model.sentences import Sentences, read_rows
from toolchain.model.text import read_sentences
from toolchain.model.text_files import read_content

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


GOOD, BAD = [3, 0, 2], [1]
OTHER_CLOTHES = {
    "a mark before the header": ("x.tsv", "\ufeffsentence\tlabel\na good film\t1\nbad\t0\n"),
    "a mark and no header": ("x.tsv", "\ufeff1\ta good film\n0\tbad\n"),
    "CRLF": ("x.tsv", "sentence\tlabel\r\na good film\t1\r\nbad\t0\r\n"),
    "no line end": ("x.TSV", "sentence\tlabel\na good film\t1\nbad\t0"),
    "pandas' index": ("x.tsv", "\tsentence\tlabel\n0\ta good film\t1\n1\tbad\t0\n"),
    "the hub's columns": ("x.tsv", "idx\tsentence\tlabel\n0\ta good film\t1\n1\tbad\t0\n"),
    "commas": ("x.csv", "sentence,label\na good film,1\nbad,0\n"),
    "commas, the label first, a mark": ("x.csv", "\ufefflabel,content\n1,a good film\n0,bad\n"),
    "commas, all quoted": ("x.csv", '"text","label"\n"a good film","1"\n"bad","0"\n'),
    "semicolons": ("x.csv", "text;label\na good film;positive\nbad;negative\n"),
    "tabs by another name": ("x.csv", "text\tlabel\na good film\tpositive\nbad\tnegative\n"),
    "JSON Lines": ("x.jsonl", '{"text": "a good film", "label": 1}\n{"text": "bad", "label": "negative"}\n'),
    "an array": ("x.json", '[{"sentence": "a good film", "label": "1"}, {"sentence": "bad", "label": 0}]'),
}


@pytest.mark.parametrize("kind", OTHER_CLOTHES)
def test_the_same_table_in_other_clothes(tmp_path: Path, tokenizer: Tokenizer, kind: str) -> None:
    name, content = OTHER_CLOTHES[kind]
    (tmp_path / name).write_bytes(content.encode())
    found = read_sentences(tmp_path / name, tokenizer, LABELS).sentences
    assert found is not None and found.labels is not None
    assert ([ids.tolist() for ids in found.each()], found.labels.tolist()) == ([GOOD, BAD], [1, 0])


def _rows(folder: Path, name: str, content: str) -> list[tuple[str, str, str | None]]:
    (folder / name).write_bytes(content.encode())
    return [(row.where, row.text, row.label) for row in read_rows(folder / name, read_content(folder / name))]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_only_a_line_end_ends_a_line(tmp_path: Path, separator: str) -> None:
    """What else Unicode takes for a line's end stands inside sentences of tables and of plain text."""
    sentence = f"a{separator}b"
    assert _rows(tmp_path, "x.tsv", f"sentence\tlabel\n{sentence}\t1\nbad\t0\n")[0] == ("line 2", sentence, "1")
    assert _rows(tmp_path, "x.csv", f"sentence,label\n{sentence},1\nbad,0\n")[0] == ("line 2", sentence, "1")
    assert _rows(tmp_path, "x.txt", f"{sentence}\nbad\n") == [("line 1", sentence, None), ("line 2", "bad", None)]


QUOTES = {
    "GLUE: marks are marks": ('"good film" he said\t1\nbad\t0\n', ['"good film" he said', "bad"]),
    "GLUE: a mark opens, another line closes": ('"good\t1\nbad"\t0\n', ['"good', 'bad"']),
    "GLUE: one line is all in marks": ('"good"\t1\nbad\t0\n', ['"good"', "bad"]),
    "GLUE: marks after one another": ('""good\t1\nbad\t0\n', ['""good', "bad"]),
    "pandas: a tab inside": ('"a\tb"\t1\nbad\t0\n', ["a\tb", "bad"]),
    "pandas: a line end inside": ('"a\nb"\t1\nbad\t0\n', ["a\nb", "bad"]),
    "pandas: marks are doubled": ('"a ""good"" film"\t1\nbad\t0\n', ['a "good" film', "bad"]),
    "everything in marks": ('"good"\t"1"\n"bad"\t"0"\n', ["good", "bad"]),
}


@pytest.mark.parametrize("kind", QUOTES)
def test_quotation_marks_in_tables_with_tabs(tmp_path: Path, kind: str) -> None:
    content, texts = QUOTES[kind]
    header = '"sentence"\t"label"\n' if kind == "everything in marks" else "sentence\tlabel\n"
    assert [row[1:] for row in _rows(tmp_path, "x.tsv", header + content)] == [(texts[0], "1"), (texts[1], "0")]


def test_lines_are_counted_as_editors_count_them(tmp_path: Path) -> None:
    assert [row[0] for row in _rows(tmp_path, "x.csv", 'text,label\n"a\nb",1\n\nc,0\n')] == ["line 2", "line 5"]


def test_what_a_writer_of_tables_writes_is_read(tmp_path: Path) -> None:
    """Against Python's own writers of both kinds, with every mark that might mislead."""
    texts = ['a "b" c', "tab\there", "line\nhere", "comma, here", '"', '""', "semi;colon", "back\\slash", "x\u2028y"]
    for name, separator, marks in itertools.product(("x.csv", "x.tsv"), ",\t", (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)):
        if (name, separator) == ("x.tsv", ","):
            continue
        sink = io.StringIO()
        csv.writer(sink, delimiter=separator, quoting=marks).writerows(
            [("text", "label"), *((t, i % 2) for i, t in enumerate(texts))]
        )
        assert [row[1] for row in _rows(tmp_path, name, sink.getvalue())] == texts


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", "good,1\nbad,0\n", "its first line is no header with a column 'label' or 'sentence' or 'text'"),
        ("x.csv", "sentence,label\na, b,1\n", "line 2 has 3 columns"),
        ("x.csv", 'sentence,label\n"a"b,1\n', r"quotation marks as spreadsheets write them \(line 2"),
        ("x.csv", 'sentence,label\n"a,1\n', "quotation marks as spreadsheets write them"),
        ("x.tsv", "sentence\tclass\ngood\t1\n", "no labels in it"),
        ("x.tsv", "label\tlabel\ngood\t1\n", "names 'label' twice"),
        ("x.tsv", "a\tb\tlabel\ngood\tbad\t1\n", "which field of line 2 .*'a', 'b'; name one with --text-field"),
        ("x.tsv", "sentence\ttext\tlabel\ngood\tbad\t1\n", "which field of line 2 holds the sentence"),
        ("x.tsv", "sentence\tlabel\n" + "a" * 200_000 + "\t1\n", "no table with tabs .*line 2: field larger"),
        ("x.jsonl", '{"text": "good", "label": true}\n', "entry 1 has the label True"),
        ("x.jsonl", '{"text": "good", "label": 1.0}\n', "entry 1 has the label 1.0"),
        ("x.jsonl", '{"text": "good", "label": 1}\n{"text": "bad"}\n', "line 2 has no 'label', and others have one"),
        ("x.jsonl", '{"text": "good", "label": null}\n', "no labels in it"),
        ("x.jsonl", '{"label": 1}\n', "beside the label there are none"),
    ],
)  # fmt: skip
def test_tables_that_are_refused(tmp_path: Path, tokenizer: Tokenizer, name: str, content: str, words: str) -> None:
    with pytest.raises(SlmcError, match=words):
        _read(tmp_path, tokenizer, content, name)


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
