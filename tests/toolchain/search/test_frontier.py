"""The frontier, the limits and the choice, on candidates made by hand."""

from __future__ import annotations

import math

import pytest

from toolchain.quality.reference import Score
from toolchain.search.frontier import excess, frontier, meets, objective, select
from toolchain.search.problem import Constraints
from toolchain.search.values import Candidate


def made(size: int, drop: float, upper: float | None = None) -> Candidate:
    score = Score(20.0, 20.0, drop, 0.0, 0.0, 1.0, 10)
    return Candidate({}, size, 0.0, score, "global", "test", drop, drop if upper is None else upper)


def pairs(candidates: tuple[Candidate, ...]) -> list[tuple[int, float]]:
    return [(c.bytes, c.drop) for c in candidates]


def test_frontier_by_hand() -> None:
    candidates = [made(*p) for p in ((300, 0.25), (100, 0.5), (200, 0.3), (400, 0.1), (200, 0.2), (500, 0.1))]
    assert pairs(frontier(candidates)) == [(100, 0.5), (200, 0.2), (400, 0.1)]
    assert frontier([]) == ()


def test_meets_counts_limits_themselves_as_kept() -> None:
    candidate = made(300, 0.1, 0.2)
    assert meets(candidate, Constraints(300, 0.1))
    assert meets(candidate, Constraints(None, None), surely=True)
    assert not meets(candidate, Constraints(299, None))
    assert not meets(candidate, Constraints(None, 0.0999))
    assert not meets(candidate, Constraints(None, 0.15), surely=True)
    assert meets(candidate, Constraints(None, 0.2), surely=True)


def test_objective_by_hand() -> None:
    candidate = made(300, 0.01, 0.02)
    assert objective(candidate, Constraints(600, 0.1)) == pytest.approx(0.5 * 0.2 + 0.5 * 0.5)
    assert objective(candidate, Constraints(600, None)) == objective(candidate, Constraints(None, None)) == 0.02
    assert objective(candidate, Constraints(None, 0.1)) == 300


def test_excess_by_hand() -> None:
    assert excess(made(300, 0.05), Constraints(300, 0.05)) == 0
    assert excess(made(450, 0.05), Constraints(300, 0.05)) == pytest.approx(0.5)
    assert excess(made(300, 0.1), Constraints(300, 0.05)) == pytest.approx(1.0)
    assert excess(made(390, 0.07), Constraints(300, 0.05)) == pytest.approx(math.hypot(0.3, 0.4))
    assert excess(made(300, 0.002), Constraints(None, 0.0)) == pytest.approx(2.0)  # relative to 0.1 % at least
    assert excess(made(10**9, 9.0), Constraints(None, None)) == 0


CANDIDATES = [
    made(100, 0.30, 0.35),
    made(200, 0.10, 0.12),
    made(300, 0.04, 0.06),
    made(400, 0.02, 0.03),
    made(900, 0.001, 0.002),
]


@pytest.mark.parametrize(
    ("constraints", "winner", "feasible"),
    [
        (Constraints(None, None), 900, True),  # no limit: the least drop
        (Constraints(350, None), 300, True),  # memory alone: the least drop within it
        (Constraints(None, 0.12), 200, True),  # drop alone: the fewest bytes that surely keep it
        (Constraints(None, 0.11), 300, True),  # 200 only probably keeps it, 300 surely
        (
            Constraints(1000, 0.1),
            400,
            True,
        ),  # J: 300: 0.3 + 0.15 = 0.45, 400: 0.15 + 0.2 = 0.35, 900: 0.01 + 0.45
        (Constraints(300, 0.05), 300, True),  # only 300 keeps both, and only probably
        (Constraints(250, 0.05), 300, False),  # 200 misses the drop by its double, 300 the bytes by a fifth
        (Constraints(50, None), 100, False),
        (Constraints(None, 0.0001), 900, False),
    ],
)
def test_select_by_hand(constraints: Constraints, winner: int, feasible: bool) -> None:
    for candidates in (CANDIDATES, CANDIDATES[::-1]):
        chosen, met = select(candidates, constraints)
        assert (chosen.bytes, met) == (winner, feasible)


def test_equals_are_settled_by_bytes() -> None:
    assert select([made(300, 0.1), made(200, 0.1)], Constraints(None, None))[0].bytes == 200
    assert select([made(300, 0.1), made(200, 0.1)], Constraints(None, 0.05))[0].bytes == 200
