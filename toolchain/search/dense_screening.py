"""Screening of dense options of large models: most of their pairs of a layer and a format are never chosen.

A search under a memory limit divides bytes at one price, so that an option that is far from the cheapest at every price
near that one cannot be chosen (Lagrange: Shoham and Gersho, IEEE ASSP 36(9), 1988). Estimates, which take no pass over
a Hessian, say which those are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from exporters.formats.catalog import family_of
from exporters.formats.families import DENSE
from toolchain.compress.recipe import LayerConfig
from toolchain.search.problem import Problem

LARGE = 5 * 10**7
"""Weights of a large model: to compress all its layers in all formats, or to judge a recipe, takes minutes."""

PRICES = 9
"""Prices at which options are compared, in equal ratios."""

PRICE_RANGE = 6.0
"""The largest of them over the one that spends the limit, and that one over the least: the final price is not known."""

MARGIN = 1.3
"""Factor by which estimates of two dense formats of a layer may be wrong relative to each other."""

Costs = Mapping[str, Mapping[LayerConfig, tuple[int, float]]]
"""Bytes and estimated loss of every option, by path of a layer."""


def is_large(problem: Problem) -> bool:
    """Whether only what lies near the memory limit is worth the time: there is one, and the model is large."""
    return problem.constraints.max_bytes is not None and problem.tree.params > LARGE


def worth_compressing(costs: Costs, room: float) -> dict[str, set[LayerConfig]]:
    """By path, the options that may be chosen at some price near the one that spends the room.

    Args:
        room: bytes that the layers may take in all.
    """
    usual = price([tuple((loss, size) for size, loss in own.values()) for own in costs.values()], room)
    steps = [usual * PRICE_RANGE ** (2 * i / (PRICES - 1) - 1) for i in range(PRICES)]
    return {path: {c for p in steps for c in _near(own, p)} for path, own in costs.items()}


def _near(own: Mapping[LayerConfig, tuple[int, float]], price: float) -> list[LayerConfig]:
    least = min(loss + price * size for size, loss in own.values())
    return [c for c, (size, loss) in own.items() if loss / MARGIN + price * size <= least]


def dense(configs: Sequence[LayerConfig]) -> list[LayerConfig]:
    """Those of dense formats."""
    return [c for c in configs if family_of(c.format) == DENSE]


HALVINGS = 60


def price(costs: Sequence[Sequence[tuple[float, int]]], room: float) -> float:
    """The least price of a byte, in nats per token, at which the cheapest options fit the room, or are smallest.

    Args:
        costs: loss and bytes of every option of every layer.
    """
    room = max(room, sum(min(size for _, size in cost) for cost in costs))
    low, high = 1e-18, 1.0
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        taken = sum(min(cost, key=lambda option: option[0] + middle * option[1])[1] for cost in costs)
        low, high = (middle, high) if taken > room else (low, middle)
    return high
