"""Batches of a text for tuning. A batch depends on the step alone, so that a resumed run reads the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from toolchain.model.sentences import Sentences

HELD_OUT_SHARE = 1 / 16
MOST_HELD_OUT = 8192
"""Tokens at the end of a text that are held out: a share of them, but at most this many."""

FEWEST_HELD_OUT = 128
"""With fewer tokens nothing is held out."""


class BatchSampler(Protocol):
    """Gives the batch of every step."""

    def at(self, step: int) -> tuple[Tensor, bool]:
        """The token ids of a step, int64 [rows, time], and whether states are empty before them."""
        ...


@dataclass(frozen=True)
class StreamSampler:
    """Reads parts of a text [streams, time] in parallel, window by window, with carried states, over and over."""

    text: Tensor
    window: int

    def at(self, step: int) -> tuple[Tensor, bool]:
        windows = -(-self.text.shape[1] // self.window)
        start = step % windows * self.window
        return self.text[:, start : start + self.window], start == 0


@dataclass(frozen=True)
class PieceSampler:
    """Reads `rows` pieces of a text [pieces, time] per step from empty states, in a new random order in every pass."""

    text: Tensor
    rows: int

    def at(self, step: int) -> tuple[Tensor, bool]:
        batches = max(1, len(self.text) // self.rows)
        turn, batch = divmod(step, batches)
        order = torch.randperm(len(self.text), generator=torch.Generator().manual_seed(turn))
        return self.text[order[batch * self.rows : (batch + 1) * self.rows]], True


@dataclass(frozen=True)
class SentenceSampler:
    """Reads up to `size` sentences of equal length per step from empty states, in a new random order in every pass."""

    sentences: Sentences
    size: int

    def at(self, step: int) -> tuple[Tensor, bool]:
        turn, index = divmod(step, len(self._batches))
        order = torch.randperm(len(self._batches), generator=torch.Generator().manual_seed(turn))
        return self.sentences.stacked(self._batches[int(order[index])]), True

    @cached_property
    def _batches(self) -> list[Tensor]:
        return self.sentences.batches(self.size)


def held_out_tokens(tokens: int, piece: int) -> int:
    """The number of held-out tokens of a text, 0 for a short one.

    piece: tokens per piece; only whole pieces are held out. 0: the text has no pieces.
    """
    held = min(MOST_HELD_OUT, int(tokens * HELD_OUT_SHARE))
    held -= held % piece if piece else 0
    return held if held >= FEWEST_HELD_OUT else 0
