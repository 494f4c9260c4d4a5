"""Two limits at once, against all assignments of small cases; what cannot be kept, and what costs nothing."""

from __future__ import annotations

import itertools
import random

import pytest

from toolchain.search.allocate import allocate
from toolchain.search.timed import allocate_within


def total(items, times, chosen):
    """Loss, bytes, milliseconds."""
    pairs = [items[u][i] for u, i in enumerate(chosen)]
    return sum(p[0] for p in pairs), sum(p[1] for p in pairs), sum(times[u][i] for u, i in enumerate(chosen))


def best_loss(items, times, budget, most_ms):
    every = (total(items, times, chosen) for chosen in itertools.product(*(range(len(o)) for o in items)))
    return min((loss for loss, size, ms in every if size <= budget and ms <= most_ms), default=None)


def case(seed, items=5, options=3):
    rng = random.Random(seed)
    made = [
        [(2.0**-size * rng.uniform(0.5, 2), size) for size in rng.sample(range(1, 12), options)] for _ in range(items)
    ]
    return made, [[rng.uniform(0.5, 3) for _ in own] for own in made]


def test_by_hand():
    """The best within 6 bytes takes 3 + 1 ms; within 3 ms the first item has to give up 2 of its bytes."""
    items = [[(0.0, 4), (1.0, 2)], [(0.0, 2), (5.0, 1)]]
    times = [[3.0, 1.0], [1.0, 0.5]]
    assert allocate_within(items, times, 6, 4.0) == [0, 0]
    assert allocate_within(items, times, 6, 3.0) == [1, 0]
    assert allocate_within(items, times, 3, 9.0) == [1, 1]


@pytest.mark.parametrize("seed", range(12))
def test_both_limits_are_kept_and_little_is_lost(seed):
    items, times = case(seed)
    budget = random.Random(seed).randint(22, 40)
    limits = [total(items, times, allocate(items, budget))[2] * share for share in (0.95, 0.85, 0.75)]
    for most_ms in limits:
        found = allocate_within(items, times, budget, most_ms)
        loss, size, ms = total(items, times, found)
        assert size <= budget
        best = best_loss(items, times, budget, most_ms)
        if best is not None and ms <= most_ms:
            assert best - 1e-12 <= loss <= 2.5 * best + 0.02  # whole items are coarse, and five are few
        fastest = min(total(items, times, c)[2] for c in itertools.product(range(3), repeat=5)
                      if total(items, times, c)[1] <= budget)  # fmt: skip
        assert (ms <= most_ms) == (fastest <= most_ms)


def test_without_need_nothing_changes():
    items, times = case(1)
    assert allocate_within(items, times, 40, 1e9) == allocate(items, 40)


def test_impossible_limits():
    items, times = case(2)
    assert allocate_within(items, times, 5, 1e9) is None  # smallest is more
    fastest = allocate_within(items, times, 10**6, 0.0)
    assert fastest == [own.index(min(own)) for own in times]


def test_losses_that_are_no_numbers_do_not_stop_it():
    items = [[(float("inf"), 1), (1.0, 2)], [(float("nan"), 1), (2.0, 2)]]
    found = allocate_within(items, [[0.1, 1.0], [0.1, 1.0]], 4, 1.5)
    assert found is not None
    assert sum([0.1, 1.0][i] for i in found) <= 1.5
