"""How a text is read while a model is tuned: what every step sees, as a function of the step alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from toolchain.model.sentences import Sentences

HELD_OUT_SHARE = 1 / 16
MOST_HELD_OUT = 8192
"""Tokens at the end of a text that are not learned from, so that they can judge: a share, and not more than these."""

FEWEST_HELD_OUT = 128


class BatchSampler(Protocol):
    """Steps to tokens."""

    def at(self, step: int) -> tuple[Tensor, bool]:
        """Token ids int64 [rows, time] of a step, and whether states are empty before them."""
        ...


@dataclass(frozen=True)
class StreamSampler:
    """Parts of a text [streams, time] side by side, window after window, states carried; then from the start again."""

    text: Tensor
    window: int

    def at(self, step: int) -> tuple[Tensor, bool]:
        windows = -(-self.text.shape[1] // self.window)
        start = step % windows * self.window
        return self.text[:, start : start + self.window], start == 0


@dataclass(frozen=True)
class PieceSampler:
    """Some of the pieces of a text [pieces, time], each from empty states, in an order drawn anew for every pass."""

    text: Tensor
    rows: int

    def at(self, step: int) -> tuple[Tensor, bool]:
        batches = max(1, len(self.text) // self.rows)
        turn, batch = divmod(step, batches)
        order = torch.randperm(len(self.text), generator=torch.Generator().manual_seed(turn))
        return self.text[order[batch * self.rows : (batch + 1) * self.rows]], True


@dataclass(frozen=True)
class SentenceSampler:
    """Sentences of the same length, `size` at most, each from empty states, in an order drawn anew for every pass."""

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
    """How many tokens of a text are held out, whole pieces of so many tokens (0: there are none); 0 of a short text."""
    held = min(MOST_HELD_OUT, int(tokens * HELD_OUT_SHARE))
    held -= held % piece if piece else 0
    return held if held >= FEWEST_HELD_OUT else 0
