"""Which dense options of a large model are compressed: prices by hand, and what a search still finds."""

from __future__ import annotations

from typing import Any

import pytest
from told import Told

from toolchain.compress.recipe import LayerConfig
from toolchain.search import dense_screening
from toolchain.search.budgets import budgets
from toolchain.search.dense_screening import is_large, price, worth_compressing
from toolchain.search.screening import screened
from toolchain.search.search import search


def test_the_price_by_hand() -> None:
    """10 bytes more save 1 nat in one layer and 4 in the other: the first is given up at 0.1 nats a byte."""
    costs = [((1.0, 10), (0.0, 20)), ((4.0, 10), (0.0, 20))]
    assert price(costs, 40) < 1e-15
    assert price(costs, 30) == pytest.approx(0.1, rel=1e-6)
    assert price(costs, 20) == pytest.approx(0.4, rel=1e-6)
    assert price(costs, 5) == pytest.approx(0.4, rel=1e-6)


def test_what_no_price_near_would_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty bytes have a price of 0.1. From a sixth of it to six times as much b is cheapest in four bits: 0.27 beside
    0.5 and 18.2, then 6.1 beside 18 and 21.1. From a hundredth to ten it is 0.11 beside 0.03, then 100.1 beside 68.1.
    """
    four, six, two = (LayerConfig(f"int{n}-g64", "gptq") for n in (4, 6, 2))
    a = {four: (10, 1.0), six: (20, 0.0)}
    b = {two: (5, 23.5), four: (10, 0.1), six: (30, 0.0)}
    assert worth_compressing({"a": a, "b": b}, 20)["b"] == {four}
    monkeypatch.setattr(dense_screening, "PRICE_RANGE", 100.0)
    assert worth_compressing({"a": a, "b": b}, 20)["b"] == {two, four, six}


def test_a_large_model_is_searched_with_less_and_found_the_same(problem: Any, evaluator: Any, monkeypatch: Any) -> None:
    made = problem(max_bytes=18_000)
    assert not is_large(made)
    whole = Told(evaluator())
    expected = search(made, whole)
    monkeypatch.setattr(dense_screening, "LARGE", 1)
    assert is_large(made) and not is_large(problem())
    less = Told(evaluator())
    found = search(made, less)
    assert found.winner.recipe == expected.winner.recipe
    assert len(less.compressed) < 0.8 * len(whole.compressed)
    assert found.screening is not None and found.screening.considered == 0
    left, screening = screened(made, Told(evaluator()))
    total = sum(len(options) for options in made.options.values() if len(options) > 1)
    assert screening is not None and screening.dense_considered == total
    assert screening.dense_skipped == total - sum(len(o) for o in left.options.values() if len(o) > 1) > 0
    assert screening.text().startswith(f"{screening.dense_skipped} of {total} pairs of a layer and a dense format")


def test_a_large_model_is_judged_near_its_limit_alone(problem: Any, evaluator: Any, monkeypatch: Any) -> None:
    """A format per module at all of the limit, and the best uniform recipe within it; with a limit of loss also a
    budget at nine tenths."""
    monkeypatch.setattr(dense_screening, "LARGE", 1)
    made = problem(max_bytes=18_000)
    assert budgets(made) == [18_000] and budgets(problem(max_bytes=18_000, max_drop=0.5)) == [16_200, 18_000]
    found = search(made, Told(evaluator()))
    assert [c.tier for c in found.trace] == ["global", "module"]
    assert all(c.bytes <= 18_000 for c in found.trace)
    assert found.winner is found.trace[1]
    tight = problem(max_bytes=made.smallest_bytes - 1)
    assert budgets(tight) == [made.smallest_bytes]
    assert len(search(tight, Told(evaluator())).trace) >= 1
