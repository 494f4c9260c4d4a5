"""The division of a byte budget among items that also keeps a limit on their time: a knapsack with two constraints."""

from __future__ import annotations

import math
from collections.abc import Sequence

from toolchain.search.allocate import Option, allocate

Items = Sequence[Sequence[Option]]
ItemTimes = Sequence[Sequence[float]]
"""Milliseconds of every option, in the order of the items."""

DOUBLINGS, HALVINGS = 40, 14
"""Doublings of the price until the time limit is met; halvings of the interval between the last two prices."""

PAIRS = 5_000
"""Partial sums kept while prices are tried: within one part in 2,500 of the budget."""


def allocate_within(items: Items, times: ItemTimes, budget: int, most_ms: float) -> list[int] | None:
    """For every item the index of the chosen option: small total loss, bytes <= budget, milliseconds <= most_ms.

    Lagrange: the loss plus a price times the time is divided exactly under the bytes, and the least price is sought
    that keeps the time; what both limits then leave is spent where one item gains most. If the time cannot be kept,
    the fastest division that fits the bytes; None if the bytes cannot.
    """
    plain = allocate(items, budget)
    if plain is None or _time(times, plain) <= most_ms:
        return plain
    fastest = _priced([[(0.0, size) for _, size in options] for options in items], times, budget, 1.0)
    if _time(times, fastest) > most_ms:
        return fastest
    worst = max((loss for options in items for loss, _ in options if math.isfinite(loss)), default=1.0)
    low, high, best = 0.0, max(worst, 1e-12) / max(most_ms, 1e-12), fastest
    for _ in range(DOUBLINGS):
        found = _priced(items, times, budget, high)
        if _time(times, found) <= most_ms:
            best = found
            break
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        price = (low + high) / 2
        found = _priced(items, times, budget, price)
        if _time(times, found) <= most_ms:
            best, high = found, price
        else:
            low = price
    return _filled(items, times, budget, most_ms, best)


def _time(times: ItemTimes, chosen: Sequence[int]) -> float:
    return sum(own[i] for own, i in zip(times, chosen, strict=True))


def _priced(items: Items, times: ItemTimes, budget: int, price: float) -> list[int]:
    """The least loss plus price * time within a budget that is known to be enough."""
    both = [
        [(loss + price * ms, size) for (loss, size), ms in zip(options, own, strict=True)]
        for options, own in zip(items, times, strict=True)
    ]
    chosen = allocate(both, budget, PAIRS)
    assert chosen is not None
    return chosen


def _filled(items: Items, times: ItemTimes, budget: int, most_ms: float, chosen: Sequence[int]) -> list[int]:
    """The choice with single items changed for the better, the largest gain first, while both limits allow one."""
    now = list(chosen)
    while True:
        bytes_left = budget - sum(options[i][1] for options, i in zip(items, now, strict=True))
        ms_left = most_ms - _time(times, now)
        gains = [
            (options[now[u]][0] - options[i][0], u, i)
            for u, options in enumerate(items)
            for i in range(len(options))
            if options[i][1] - options[now[u]][1] <= bytes_left and times[u][i] - times[u][now[u]] <= ms_left
        ]
        gain, item, option = max(gains, default=(0.0, 0, 0))
        if not gain > 0:
            return now
        now[item] = option
