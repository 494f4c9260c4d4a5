"""Tokenizers and texts: read, checked against the model, and turned into token ids."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.model.records import joined, texts_of
from toolchain.model.sentences import Sentences, read_rows, sentences_of
from toolchain.model.tables import LAYOUT
from toolchain.model.text_files import read_content

SHORTEST_TOKENS = 128
"""A text with fewer tokens says nothing about a model."""

Reading = Tensor | Sentences
"""What a model is given to read: token ids int64 [n] of one text, or sentences that each begin anew."""


@dataclass(frozen=True)
class Text:
    """A text as the model sees it: ids int64 [n], its size in UTF-8 bytes, where it came from.

    sha256: of its characters in UTF-8 with lines ended by '\\n', which of a plain text is that of its file; of tables
    that of the whole table. sentences: the same ids as a classifier reads them.
    """

    name: str
    ids: Tensor
    n_bytes: int
    sha256: str
    sentences: Sentences | None = None

    @property
    def reading(self) -> Reading:
        return self.ids if self.sentences is None else self.sentences

    def head(self, tokens: int) -> Text:
        """The first so many tokens, of sentences whole ones; bytes in proportion."""
        if tokens >= len(self.ids):
            return self
        sentences = self.sentences and self.sentences.head(tokens)
        ids = sentences.ids if sentences else self.ids[:tokens]
        return Text(self.name, ids, round(self.n_bytes * len(ids) / len(self.ids)), self.sha256, sentences)


def first(reading: Reading, tokens: int) -> Reading:
    """The first so many tokens, of sentences whole ones."""
    return reading.head(tokens) if isinstance(reading, Sentences) else reading[:tokens]


def read_text(path: Path, tokenizer: Tokenizer, context: int | None = None, field: str | None = None) -> Text:
    """A file of texts as tokens; see `toolchain.model.text_files` for what it may be. Records follow one another.

    With a context the text is cut into pieces of so many tokens, that are read separately, and each begins as the
    tokenizer begins a text: with <s> or the like, if it has such a token.

    Args:
        field: of records, which one holds the text; 'text' if not given.

    Raises:
        SlmcError: no such file, empty, no text, or too short.
    """
    content = read_content(path, field)
    text = content.text if content.records is None else joined(texts_of(path, content.records, field))
    if not text.strip():
        raise SlmcError(f"{path}: the text is empty; at least {SHORTEST_TOKENS} tokens are needed")
    ids = torch.tensor(_cut(tokenizer.encode(text, add_special_tokens=False).ids, tokenizer, context))
    if len(ids) < SHORTEST_TOKENS:
        raise SlmcError(f"{path}: {len(ids)} tokens are too few to judge a model; give at least {SHORTEST_TOKENS}")
    return _text(path, ids, text)


def read_sentences(
    path: Path, tokenizer: Tokenizer, labels: tuple[str, ...], context: int | None = None, field: str | None = None,
    *, labelled: bool = True,
) -> Text:  # fmt: skip
    """A file of sentences as tokens; see `toolchain.model.sentences` for its layouts.

    Args:
        labels: names of the classes.
        field: of records, which one holds the sentence.
        labelled: whether every sentence must have its class.

    Raises:
        SlmcError: no such file, empty, no text, not labelled, or a line that is wrong; the text names it.
    """
    content = read_content(path, field)
    rows = read_rows(path, content, field)
    sentences = sentences_of(path, rows, tokenizer, labels, context)
    if labelled and sentences.labels is None:
        raise SlmcError(f"{path}: no labels in it, and a classifier is judged by them; give a .tsv of {LAYOUT}")
    return _text(path, sentences.ids, content.text or "".join(f"{row.label}\t{row.text}\n" for row in rows), sentences)


def _text(path: Path, ids: Tensor, characters: str, sentences: Sentences | None = None) -> Text:
    """The SHA-256 is that of the characters in UTF-8, so that the same text in other clothes is the same text."""
    raw = characters.encode()
    return Text(path.name, ids, len(raw), hashlib.sha256(raw).hexdigest(), sentences)


def read_judged(
    path: Path | None, tokenizer: Tokenizer, labels: tuple[str, ...], context: int | None, option: str,
    field: str | None = None,
) -> Text:  # fmt: skip
    """Labelled sentences of the user's: none are shipped, because only he knows what his classes are.

    Raises:
        SlmcError: there is no file, and as `read_sentences`.
    """
    if path is None:
        raise SlmcError(f"a classifier is judged on labelled sentences: give {option} FILE.tsv with {LAYOUT}")
    return read_sentences(path, tokenizer, labels, context, field)


def _cut(ids: list[int], tokenizer: Tokenizer, context: int | None) -> list[int]:
    beginning: list[int] = tokenizer.encode("").ids
    if context is None:
        return [*beginning, *ids]
    size = context - len(beginning)
    if not beginning or size < 1:
        return ids
    return [token for at in range(0, len(ids), size) for token in (*beginning, *ids[at : at + size])]
