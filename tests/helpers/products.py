"""A model of one table and one matrix."""

from __future__ import annotations

from torch import Tensor, nn


class Product(nn.Module):
    """Logits from a table and a matrix; a state, because a graph has some."""

    def __init__(self, table: nn.Module, linear: nn.Module) -> None:
        super().__init__()
        self.table, self.linear = table, linear

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        y = self.linear(self.table(tokens))
        return y, [state[0] + y[:, -1]]
