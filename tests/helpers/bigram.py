"""The smallest language model: a table and a matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from exporters.states import StateSpec


class Bigram(nn.Module):
    """Logits of the next token = head(emb(token)): no state, no spikes."""

    context: int | None = None

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(vocabulary, width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.register_buffer("unused", torch.ones(3))

    def state_specs(self) -> list[StateSpec]:
        return []

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        return []

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return self.head(self.emb(tokens)), []
