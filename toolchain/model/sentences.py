"""Sentences with their classes: read from a table or a text, tokenised, and grouped so that none needs padding."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from exporters.errors import SlmcError

BATCH = 32
"""Sentences of one length that are read side by side."""

LAYOUT = "two columns with a tab between, a sentence and its label, and a header that names one of them 'label'"


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
    """One sentence as the file has it: its line, its text, its label if there is one."""

    line: int
    text: str
    label: str | None


def read_rows(path: Path, text: str) -> list[Row]:
    """The lines of a file of sentences: of a .tsv two columns, otherwise a sentence each, without labels.

    A header with a column called 'label' says which of the two that is, as in GLUE; without a header the label comes
    first. Empty lines are skipped.

    Raises:
        SlmcError: a line of a table has not two columns.
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if path.suffix != ".tsv":
        return [Row(number, line.strip(), None) for number, line in lines]
    for number, line in lines:
        columns = line.count("\t") + 1
        if columns != 2:
            raise SlmcError(f"{path}: line {number} has {columns} columns; {LAYOUT} are needed")
    header = [cell.strip().lower() for cell in lines[0][1].split("\t")] if lines else []
    at = header.index("label") if "label" in header else 0
    rows = []
    for number, line in lines[1:] if "label" in header else lines:
        cells = line.split("\t")
        rows.append(Row(number, cells[1 - at].strip(), cells[at].strip()))
    return rows


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
            raise SlmcError(f"{path}: line {row.line} has an empty sentence; remove it")
        if context is not None and len(encoding.ids) > context:
            raise SlmcError(
                f"{path}: the sentence of line {row.line} has {len(encoding.ids)} tokens, and the model reads "
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
    raise SlmcError(f"{path}: line {row.line} has the label {label!r}; the model's classes are {known}")
