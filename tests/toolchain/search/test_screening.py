"""Which sparse options are compressed: hulls by hand, what stays, what a whole search makes of them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from exporters.formats.catalog import SEARCHED_SPARSE, family_of
from exporters.formats.families import DENSE, SPARSE
from toolchain.compress.recipe import LayerConfig
from toolchain.search.budgets import dense_alone
from toolchain.search.screening import MARGIN, hull_at, screened
from toolchain.search.search import search

DENSE_NAMES = ("int8", "int4-g64", "int2-g64")
SPARSE_NAMES = ("2:4/int4-g64", "6:8/int4-g64", "4:8x16/int4-g64", "1:4/int2-g64", "fp4-g16")


def mixed(problem: Any, **limits: Any) -> Any:
    return problem(formats=(*DENSE_NAMES, *SPARSE_NAMES), **limits)


class Told:
    """Adds the two cheap answers to the fake: estimates are twice the truth, N:M losing `factor` times more."""

    def __init__(self, fake: Any, factors: dict[str, float]) -> None:
        self.fake, self.factors, self.compressed = fake, factors, set()

    def loss(self, path: str, config: LayerConfig) -> float:
        self.compressed.add((path, config.format))
        return self.fake.loss(path, config) * self.factors.get(config.format, 1.0)

    def estimate(self, path: str, config: LayerConfig) -> float:
        return 2 * self.fake.loss(path, config) * self.factors.get(config.format, 1.0)

    def expect(self, **more: Any) -> None:
        """It needs no notice."""

    def kurtosis(self, path: str) -> float:
        return 5.0 if path == "head" else 3.0

    def evaluate(self, recipe: Any) -> Any:
        return self.fake.evaluate(recipe)


def test_the_hull_by_hand() -> None:
    points = [(10, 8.0), (20, 5.0), (30, 1.0), (40, 2.0), (50, 0.5)]
    assert hull_at(points, 10) == 8.0
    assert hull_at(points, 20) == 4.5  # the second point lies above the line from the first to the third
    assert hull_at(points, 30) == 1.0
    assert hull_at(points, 40) == 0.75  # the fourth loses more than a smaller one
    assert (hull_at(points, 5), hull_at(points, 99)) == (8.0, 0.5)
    assert hull_at([(7, 3.0)], 7) == 3.0


def test_families_by_name() -> None:
    names = {"int4-g64": DENSE, "sign": DENSE, "event/int4-g64": DENSE, "2:4/int4-g64": SPARSE[0],
             "4:8x16/int4-g64": SPARSE[1], "1:8/int8+6:8/fp4-g16": SPARSE[2], "fp4-g16": SPARSE[3],
             "6:8/fp4-g16": SPARSE[0]}  # fmt: skip
    assert {name: family_of(name) for name in names} == names
    assert {family_of(f.name) for f in SEARCHED_SPARSE} == set(SPARSE)


def test_what_cannot_pay_is_left_out_but_for_one_of_every_family(problem: Any, evaluator: Any) -> None:
    """4:8 of 16 rows gains a hundredfold, all else loses by far: one of each family stays, and all that is dense."""
    factors = dict.fromkeys(SPARSE_NAMES, 100.0) | {"4:8x16/int4-g64": 0.01}
    made = mixed(problem)
    left, found = screened(made, Told(evaluator(), factors))
    assert found is not None
    for path, options in left.options.items():
        names = {c.format for c in options}
        if path == "emb":
            assert options == made.options[path]
            continue
        assert set(DENSE_NAMES) | {"4:8x16/int4-g64", "fp4-g16"} < names
        assert len(names & {"2:4/int4-g64", "6:8/int4-g64", "1:4/int2-g64"}) >= 1
    layers = len(made.options) - 1
    assert found.considered == 5 * layers
    assert found.skipped == sum(len(made.options[p]) - len(left.options[p]) for p in made.options) > layers
    assert (found.least_kurtosis, found.largest_kurtosis) == (3.0, 5.0)
    assert f"{found.skipped} of {5 * layers} pairs" in found.text() and f"{MARGIN:g} times" in found.text()


def test_options_that_may_pay_stay(problem: Any, evaluator: Any) -> None:
    left, found = screened(mixed(problem), Told(evaluator(), dict.fromkeys(SPARSE_NAMES, 1e-3)))
    assert found is not None
    for path in ("blocks.0.value", "blocks.1.value"):  # of 128 inputs: narrower ones are padded to as many
        assert "1:4/int2-g64" in {c.format for c in left.options[path]}


def test_without_sparse_formats_nothing_is_asked(problem: Any) -> None:
    made = problem()
    assert screened(made, None) == (made, None)  # type: ignore[arg-type]


def test_a_pinned_sparse_layer_keeps_its_format(problem: Any, evaluator: Any) -> None:
    made = mixed(problem, pins={"head": "2:4/int4-g64"})
    left, _ = screened(made, Told(evaluator(), dict.fromkeys(SPARSE_NAMES, 100.0)))
    assert left.options["head"] == made.options["head"] == (LayerConfig("2:4/int4-g64", "nearest"),)
    assert dense_alone(left).options["head"] == made.options["head"]


def test_a_search_compresses_nothing_that_was_screened_out(problem: Any, evaluator: Any) -> None:
    factors = dict.fromkeys(SPARSE_NAMES, 100.0) | {"4:8x16/int4-g64": 0.01}
    told = Told(evaluator(), factors)
    result = search(mixed(problem, max_drop=0.05), told)
    left, _ = screened(mixed(problem), Told(evaluator(), factors))
    assert told.compressed <= {(p, c.format) for p, options in left.options.items() for c in options}
    assert {c.tier for c in result.trace} >= {"global", "module", "dense"}
    dense = [c for c in result.trace if c.tier == "dense"]
    assert all(family_of(config.format) == DENSE for c in dense for config in c.recipe.values())
    tried = {c.why for c in result.trace if c.tier == "global"}
    assert tried >= {*DENSE_NAMES, "4:8x16/int4-g64", "fp4-g16"}


@pytest.mark.parametrize("gain", [0.01, 100.0])
def test_sparse_formats_are_chosen_if_they_gain_and_only_then(problem: Any, evaluator: Any, gain: float) -> None:
    factors = dict.fromkeys(SPARSE_NAMES, 100.0) | {"4:8x16/int4-g64": gain}
    fake = evaluator()
    plain = fake.loss
    fake.loss = lambda path, config: plain(path, config) * factors.get(config.format, 1.0)
    fake.estimate, fake.kurtosis = fake.loss, lambda path: math.nan
    result = search(mixed(problem, max_drop=0.02), fake)
    chosen = {family_of(c.format) for p, c in result.winner.recipe.items() if p != "emb"}
    assert (SPARSE[1] in chosen) is (gain < 1)
    assert result.feasible
