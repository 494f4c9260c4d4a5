"""N:M pruning after a permutation of the input channels: E-Sparse's shuffles and RIA's permutation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from toolchain.compress.layer_statistics import LayerStatistics
from toolchain.compress.lookup import named
from toolchain.compress.permutation import assigned, block_swaps, serpentine
from toolchain.compress.pruners import Scored
from toolchain.compress.scores import ESparse, Ria

Order = Callable[[Tensor, int, int], Tensor]
"""(scores [rows, cols], N, M) -> order of the channels, int64 [cols] (toolchain.compress.permutation)."""


def shuffled(score: Tensor, keep: int, of: int) -> Tensor:
    """E-Sparse's global naive shuffle, then its local block shuffle (arXiv 2310.15929, section 3.3)."""
    dealt = serpentine(score, of)
    return dealt[block_swaps(score[:, dealt], keep, of)]


@dataclass(frozen=True)
class Ordered:
    """Prunes by a score in a permuted channel order. The result is in the original order again.

    The permutation is free at run time if the previous layer can produce its outputs in this order. Otherwise it costs
    one gather of the inputs.
    """

    name: str
    scored: Scored
    order: Order

    @property
    def needs_entropy(self) -> bool:
        return self.scored.needs_entropy

    def prune(self, weight: Tensor, keep: int, of: int, statistics: LayerStatistics) -> Tensor:
        """weight [rows, cols] float32 with `keep` of every `of` inputs that are neighbours in the order.

        Raises:
            SlmcError: a statistic that the score needs was not collected.
        """
        order = self.order(self.scored.scores(weight, statistics), keep, of)
        pruned = torch.empty_like(weight)
        pruned[:, order] = self.scored.prune(weight[:, order], keep, of, statistics.reordered(order))
        return pruned


ORDERED: tuple[Ordered, ...] = (
    Ordered("esparse-shuffle", Scored(ESparse()), shuffled),
    Ordered("ria-permutation", Scored(Ria()), assigned),
)


def ordered_named(name: str) -> Ordered:
    """The permuted pruning method of that name.

    Raises:
        SlmcError: there is none.
    """
    return named(ORDERED, name, "permuted pruning method")
