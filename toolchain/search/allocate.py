"""The exact division of a byte budget among items under additive losses: a multiple-choice knapsack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Option = tuple[float, int]
"""Loss and bytes of one way to store an item."""

MOST_PAIRS = 50_000
"""Beyond this number of partial sums, sums of nearly equal bytes are merged; the larger byte count is kept."""


def smallest_bytes(items: Sequence[Sequence[Option]]) -> int:
    """The smallest total of all items, in bytes."""
    return sum(min(size for _, size in options) for options in items)


@dataclass(frozen=True)
class _Step:
    """Undominated sums over the first items, by rising bytes and falling loss, and how each came about."""

    sizes: NDArray[np.int64]
    losses: NDArray[np.float64]
    before: NDArray[np.int64]  # index into the step before
    option: NDArray[np.int64]  # of the newest item


def allocate(items: Sequence[Sequence[Option]], budget: int, most_pairs: int = MOST_PAIRS) -> list[int] | None:
    """For every item the index of the chosen option: least total loss with total bytes <= budget, None if impossible.

    Item by item, every sum of bytes and loss that no other beats in both is kept, as long as the rest can still fit.
    Exact up to most_pairs sums; beyond, within one part in half as many of the budget.
    """
    rest = smallest_bytes(items)
    if rest > budget:
        return None
    zero = np.zeros(1, np.int64)
    steps = [_Step(zero, np.zeros(1), zero, zero)]
    for options in items:
        rest -= min(size for _, size in options)
        steps.append(_extended(steps[-1], options, budget - rest, most_pairs))
    chosen, at = [], len(steps[-1].losses) - 1
    for step in reversed(steps[1:]):
        chosen.append(int(step.option[at]))
        at = int(step.before[at])
    return chosen[::-1]


def _extended(step: _Step, options: Sequence[Option], room: int, most_pairs: int) -> _Step:
    """The undominated sums with one more item that leave enough bytes for the remaining ones."""
    worth = _undominated(options)
    losses = (step.losses[:, None] + np.array([options[i][0] for i in worth])).ravel()
    sizes = (step.sizes[:, None] + np.array([options[i][1] for i in worth], np.int64)).ravel()
    order = np.lexsort((losses, sizes))
    order = order[sizes[order] <= room]
    best_before = np.minimum.accumulate(np.concatenate([[np.inf], losses[order][:-1]]))
    kept = order[losses[order] < best_before]
    if len(kept) == 0:  # every sum is infinite or not a number: keep the smallest
        kept = order[:1]
    if len(kept) > most_pairs:
        # Of sums in the same narrow band of bytes the last has the least loss, and the most bytes.
        band = sizes[kept] * (most_pairs // 2) // max(room, 1)
        kept = kept[np.append(band[1:] != band[:-1], True)]
    return _Step(sizes[kept], losses[kept], kept // len(worth), np.array(worth)[kept % len(worth)])


def _undominated(options: Sequence[Option]) -> list[int]:
    """The options that lose less than every smaller one, by index; the first of equals."""
    best: list[int] = []
    for i in sorted(range(len(options)), key=lambda i: (options[i][1], options[i][0], i)):
        if not best or not options[i][0] >= options[best[-1]][0]:
            best.append(i)
    return sorted(best)
