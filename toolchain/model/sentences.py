"""Sentences with their classes: read from a table or a text, tokenised, and grouped so that none needs padding."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.model.records import LABEL_FIELD, TEXT_FIELD, Record, text_of
from toolchain.model.tables import LAYOUT, SENTENCE_FIELD
from toolchain.model.text_files import Content

BATCH = 32
"""Sentences of one length that are read side by side."""


@dataclass(frozen=True)
class Sentences:
    """Texts that are read one by one: their token ids int64 [n] one after the other, where each ends, and their classes
    int64 [sentences], None where nobody said them."""

    ids: Tensor
    ends: tuple[int, ...]
    labels: Tensor | None = None

    def __len__(self) -> int:
        """Tokens of all sentences together."""
        return len(self.ids)

    def each(self) -> list[Tensor]:
        """The ids of every sentence, in order."""
        return [self.ids[start:end] for start, end in pairwise((0, *self.ends))]

    def head(self, tokens: int) -> Sentences:
        """The first sentences that have no more than so many tokens together; one at least."""
        count = max(1, sum(end <= tokens for end in self.ends))
        ends = self.ends[:count]
        return Sentences(self.ids[: ends[-1]], ends, None if self.labels is None else self.labels[:count])

    def batches(self, size: int = BATCH) -> list[Tensor]:
        """Indices int64 [b] of all sentences, b of `size` at most; those of a batch have the same length.

        So a batch is a rectangle without padding, and no model has to know of masks.
        """
        lengths = torch.tensor([end - start for start, end in pairwise((0, *self.ends))])
        order = torch.argsort(lengths, stable=True)
        groups = torch.split(order, torch.unique_consecutive(lengths[order], return_counts=True)[1].tolist())
        return [batch for group in groups for batch in torch.split(group, size)]

    def stacked(self, batch: Tensor) -> Tensor:
        """Token ids int64 [b, time] of sentences of the same length."""
        each = self.each()
        return torch.stack([each[i] for i in batch.tolist()])


@dataclass(frozen=True)
class Row:
    """One sentence as the file has it: where it stands ('line 3'), its text, its label if there is one."""

    where: str
    text: str
    label: str | None


def read_rows(path: Path, content: Content, field: str | None = None) -> list[Row]:
    """The sentences of a file: one of every record, of plain text one of every line, without labels.

    A label is what a field 'label' holds; the sentence is in the field that the user named, in 'sentence' or 'text', or
    in the only other one. Empty lines are skipped.

    Raises:
        SlmcError: a record has no sentence or no such label, or several fields may be meant.
    """
    if content.records is None:
        lines = enumerate(content.text.split("\n"), 1)
        return [Row(f"line {number}", line.strip(), None) for number, line in lines if line.strip()]
    rows = [
        Row(record.where, text_of(path, record, field or _field(path, record)).strip(), _label(path, record))
        for record in content.records
    ]
    bare = [row.where for row in rows if row.label is None]
    if 0 < len(bare) < len(rows):
        raise SlmcError(f"{path}: {bare[0]} has no {LABEL_FIELD!r}, and others have one; add it")
    return rows


def _field(path: Path, record: Record) -> str:
    """The field of a record that holds its sentence, where the user named none."""
    others = [name for name in record.fields if name != LABEL_FIELD]
    known = [name for name in others if name in (SENTENCE_FIELD, TEXT_FIELD)]
    found = known if len(known) == 1 else others
    if len(found) != 1:
        names = ", ".join(map(repr, others)) or "none"
        raise SlmcError(
            f"{path}: which field of {record.where} holds the sentence? beside the label there are {names}; name one "
            "with --text-field"
        )
    return found[0]


def _label(path: Path, record: Record) -> str | None:
    match record.fields.get(LABEL_FIELD):
        case None:
            return None
        case str(label):
            return label.strip()
        case int(number) if not isinstance(number, bool):
            return str(number)
        case other:
            raise SlmcError(f"{path}: {record.where} has the label {other!r}; the name or number of a class is needed")


def sentences_of(
    path: Path, rows: list[Row], tokenizer: Tokenizer, labels: tuple[str, ...], context: int | None
) -> Sentences:
    """Rows as tokens, and their labels as numbers of classes; a file says a class by its name or number.

    Raises:
        SlmcError: no sentence, one that is empty or longer than the context, or a label that is no class.
    """
    if not rows:
        raise SlmcError(f"{path}: no sentences in it; give {LAYOUT}")
    classes = [_class(path, row, row.label, labels) for row in rows if row.label is not None]
    encoded = tokenizer.encode_batch([row.text for row in rows])
    ids, ends, total = [], [], 0
    for row, encoding in zip(rows, encoded, strict=True):
        if not encoding.ids:
            raise SlmcError(f"{path}: {row.where} has an empty sentence; remove it")
        if context is not None and len(encoding.ids) > context:
            raise SlmcError(
                f"{path}: the sentence of {row.where} has {len(encoding.ids)} tokens, and the model reads "
                f"{context} at most; shorten it or give a larger --context"
            )
        ids.append(torch.tensor(encoding.ids))
        total += len(encoding.ids)
        ends.append(total)
    return Sentences(torch.cat(ids), tuple(ends), torch.tensor(classes) if classes else None)


def _class(path: Path, row: Row, label: str, labels: tuple[str, ...]) -> int:
    if label in labels:
        return labels.index(label)
    if label.isdecimal() and int(label[:9]) < len(labels):
        return int(label)
    known = ", ".join(f"{i} ({name})" for i, name in enumerate(labels))
    raise SlmcError(f"{path}: {row.where} has the label {label!r}; the model's classes are {known}")
