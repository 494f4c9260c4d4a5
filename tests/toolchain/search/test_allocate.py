"""The knapsack against all assignments, and against exact dynamic programming where there are too many of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from toolchain.search.allocate import Option, allocate, smallest_bytes

Items = Sequence[Sequence[Option]]


def total(items: Items, chosen: Sequence[int]) -> Option:
    pairs = [items[u][i] for u, i in enumerate(chosen)]
    return sum(loss for loss, _ in pairs), sum(size for _, size in pairs)


def brute_force(items: Items, budget: int) -> float | None:
    """The least loss within the budget over all assignments."""
    every = (total(items, chosen) for chosen in itertools.product(*(range(len(options)) for options in items)))
    return min((loss for loss, size in every if size <= budget), default=None)


def least_loss(items: Items, budget: int) -> float:
    """The same by merging one item after another and keeping only what nothing beats."""
    losses, sizes = np.zeros(1), np.zeros(1, np.int64)
    for options in items:
        sizes = np.concatenate([sizes + size for _, size in options])
        losses = np.concatenate([losses + loss for loss, _ in options])
        order = np.lexsort((losses, sizes))
        order = order[sizes[order] <= budget]
        losses, sizes = losses[order], sizes[order]
        better = np.concatenate([[True], losses[1:] < np.minimum.accumulate(losses)[:-1]])
        losses, sizes = losses[better], sizes[better]
    return float(losses[-1])


def layers(dice: random.Random, count: int) -> list[list[Option]]:
    """Layers in 15 formats, as a real search has them: sensitivities over four decades, bits of scales counted."""
    formats = [(8, 8.0), (6, 6.25), (5, 5.25), (4, 4.5), (4, 4.25), (4, 4.125), (3, 3.5), (3, 3.25), (3, 3.125),
               (2, 2.5), (2, 2.25), (4, 4.375), (3, 3.375), (2, 2.75), (16, 16.0)]  # fmt: skip
    items = []
    for _ in range(count):
        size, loss = dice.choice((65536, 65536, 262144)), 10 ** dice.uniform(-4, 0)
        items.append([
            (loss * 4.0**-bits * dice.uniform(0.8, 1.2) * (1.2 - (stored - bits) / 2), int(size * stored / 8))
            for bits, stored in formats
        ])  # fmt: skip
    return items


def test_by_hand() -> None:
    """Both small is 20 bytes; with 15 more one may be large, and the second gains more: 5 nats against 3."""
    items = [[(4.0, 10), (1.0, 25)], [(6.0, 10), (1.0, 25)]]
    assert allocate(items, 20) == [0, 0]
    assert allocate(items, 34) == [0, 0]
    assert allocate(items, 35) == [0, 1]
    assert allocate(items, 49) == [0, 1]
    assert allocate(items, 50) == [1, 1]
    assert allocate(items, 19) is None


def test_greed_would_be_wrong() -> None:
    """The best gain per byte (5 nats for 6 bytes) leaves no room for the better pair of 5 bytes each."""
    items = [[(5.0, 0), (0.0, 6)], [(4.0, 0), (0.0, 5)], [(4.0, 0), (0.0, 5)]]
    assert allocate(items, 10) == [0, 1, 1]


LOSSES: dict[str, Callable[[random.Random], float]] = {
    "even": lambda dice: dice.random(),
    "decades": lambda dice: 10 ** dice.uniform(-6, 1),
    "ties": lambda dice: float(dice.randrange(4)),
}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("largest_bytes", [10, 10_000, 10_000_000])
def test_random_instances_against_all_assignments(kind: str, largest_bytes: int) -> None:
    dice = random.Random(kind + str(largest_bytes))
    impossible = 0
    for _ in range(60):
        items = [
            [(LOSSES[kind](dice), dice.randrange(1, largest_bytes)) for _ in range(dice.randrange(1, 6))]
            for _ in range(dice.randrange(1, 6))
        ]
        most = sum(max(size for _, size in options) for options in items)
        budget = dice.randrange(int(0.7 * smallest_bytes(items)), most + 2)
        expected, chosen = brute_force(items, budget), allocate(items, budget)
        assert (chosen is None) is (expected is None)
        impossible += chosen is None
        if chosen is not None and expected is not None:
            loss, size = total(items, chosen)
            assert size <= budget
            assert loss == pytest.approx(expected, rel=1.1e-4, abs=1e-12)  # the gap at which HiGHS stops
    assert 0 < impossible < 30


@pytest.mark.parametrize("room", [1.0, 1.05, 1.3, 2.0, 3.5])
def test_forty_layers_come_near_the_optimum_within_the_budget(room: float) -> None:
    items = layers(random.Random(1), 44)
    budget = int(smallest_bytes(items) * room)
    chosen = allocate(items, budget)
    assert chosen is not None
    loss, size = total(items, chosen)
    assert size <= budget
    assert loss == pytest.approx(least_loss(items, budget), rel=0.01)


def test_forty_layers_are_divided_exactly() -> None:
    for seed in range(3):
        items = layers(random.Random(seed), 44)
        for room in (2.5, 3.0):
            budget = int(smallest_bytes(items) * room)
            chosen = allocate(items, budget)
            assert chosen is not None
            assert total(items, chosen)[0] == pytest.approx(least_loss(items, budget), rel=1e-9)


def test_a_few_bytes_in_gigabytes_are_not_lost() -> None:
    dice = random.Random(0)
    for _ in range(40):
        items = [[(dice.uniform(1, 2), 10**8), (dice.random(), 10**8 + dice.randrange(1, 100))] for _ in range(10)]
        budget = 10**9 + dice.randrange(1, 500)
        chosen = allocate(items, budget)
        assert chosen is not None
        assert total(items, chosen)[1] <= budget
        assert total(items, chosen)[0] == pytest.approx(least_loss(items, budget), rel=1e-9)


def test_losses_that_are_all_zero_are_no_division_by_zero() -> None:
    items = [[(0.0, 5), (0.0, 3)], [(0.0, 7)]]
    assert allocate(items, 10) == [1, 0]
    assert allocate(items, 9) is None


def test_a_budget_above_everything_takes_the_least_loss_everywhere() -> None:
    items = layers(random.Random(5), 10)
    chosen = allocate(items, 10**9)
    assert chosen == [min(range(15), key=lambda i, u=u: items[u][i][0]) for u in range(10)]  # type: ignore[misc]


def test_more_sums_than_are_kept_still_come_near_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolchain.search.allocate.MOST_PAIRS", 400)
    dice = random.Random(3)
    items = [[(dice.random(), dice.randrange(1, 10**9)) for _ in range(6)] for _ in range(20)]
    budget = 2 * smallest_bytes(items)
    chosen = allocate(items, budget)
    assert chosen is not None
    loss, size = total(items, chosen)
    assert size <= budget
    assert loss <= 1.1 * least_loss(items, budget)
