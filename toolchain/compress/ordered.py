"""Pruning of channels in an order that keeps more: E-Sparse's shuffles and RIA's permutation around a score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.compress.permutation import assigned, block_swaps, serpentine
from toolchain.compress.pruners import Scored, Seen
from toolchain.compress.scores import ESparse, Ria

Order = Callable[[Tensor, int, int], Tensor]
"""From scores [rows, cols], N and M to an order of the channels, int64 [cols] (toolchain.compress.permutation)."""


def shuffled(score: Tensor, keep: int, of: int) -> Tensor:
    """E-Sparse's global naive shuffle, then its local block shuffle (arXiv 2310.15929, section 3.3)."""
    dealt = serpentine(score, of)
    return dealt[block_swaps(score[:, dealt], keep, of)]


@dataclass(frozen=True)
class Ordered:
    """A score's pruning after its channels have been put in order; the result stands in the original order again.

    The order costs nothing where the layer before can give its outputs in it, and one gather of the inputs elsewhere.
    """

    name: str
    scored: Scored
    order: Order

    @property
    def needs_entropy(self) -> bool:
        return self.scored.needs_entropy

    def prune(self, weight: Tensor, keep: int, of: int, seen: Seen) -> Tensor:
        """weight [rows, cols] float32 with `keep` of every `of` inputs that are neighbours in the order."""
        order = self.order(self.scored.scores(weight, seen), keep, of)
        entropy = None if seen.entropy is None else seen.entropy[order]
        hessian = None if seen.hessian is None else seen.hessian[order][:, order]
        pruned = torch.empty_like(weight)
        pruned[:, order] = self.scored.prune(weight[:, order], keep, of, Seen(hessian, entropy))
        return pruned


ORDERED: tuple[Ordered, ...] = (
    Ordered("esparse-shuffle", Scored(ESparse()), shuffled),
    Ordered("ria-permutation", Scored(Ria()), assigned),
)


def ordered_named(name: str) -> Ordered:
    """The pruning in order of that name.

    Raises:
        SlmcError: there is none.
    """
    for ordered in ORDERED:
        if ordered.name == name:
            return ordered
    raise SlmcError(f"unknown pruning in order {name!r}; allowed are {', '.join(o.name for o in ORDERED)}")
