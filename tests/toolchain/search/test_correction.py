"""Sparse layers that lose more than is expected: by how much, and what a search makes of it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from exporters.formats.catalog import family_of
from exporters.formats.families import DENSE
from toolchain.compress.recipe import LayerConfig
from toolchain.quality.reference import Score
from toolchain.search.budgets import dense_alone
from toolchain.search.correction import MOST, corrected, sparse_factor
from toolchain.search.search import search
from toolchain.search.values import Candidate

A, B = LayerConfig("int2-g64", "gptq"), LayerConfig("2:4/int4-g64", "gptq")
LOSSES = {("a", A): 0.01, ("a", B): 0.02, ("b", A): 0.03, ("b", B): 0.05}
RECIPES = ({"a": A, "b": A}, {"a": B, "b": A}, {"a": A, "b": B}, {"a": B, "b": B})


def candidates(scale: float, factor: float, noise: float = 1e-5) -> list[Candidate]:
    made = []
    for recipe in RECIPES:
        nats = scale * sum(LOSSES[i] * (factor if i[1] == B else 1.0) for i in recipe.items())
        score = Score(20.0, 20.0, math.expm1(nats), noise, 0.0, 0.9, 1000)
        made.append(Candidate(recipe, 100, sum(LOSSES[i] for i in recipe.items()), score, "module", ""))
    return made


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("factor", [1.0, 1.5, 3.0])
def test_the_factor_is_found_where_nothing_is_noisy(scale: float, factor: float) -> None:
    """Of forty candidates; the belief that it is 1 draws a few of them further."""
    few, many = (sparse_factor(candidates(scale, factor) * times, LOSSES) for times in (1, 10))
    assert many == pytest.approx(factor, rel=0.1)
    assert 1.0 <= few <= many + 1e-9 <= factor + 2e-9


def test_noise_leaves_it_alone_and_it_has_bounds() -> None:
    assert sparse_factor(candidates(1.0, 2.0, noise=10.0), LOSSES) == pytest.approx(1.0, abs=1e-3)
    assert sparse_factor(candidates(1.0, 0.3), LOSSES) == 1.0
    assert sparse_factor(candidates(1.0, 1e3), LOSSES) <= MOST
    assert sparse_factor(candidates(1.0, 2.0)[:1], LOSSES) == 1.0  # nothing sparse was tried


def test_only_sparse_losses_are_corrected() -> None:
    assert corrected(LOSSES, 2.0) == {("a", A): 0.01, ("a", B): 0.04, ("b", A): 0.03, ("b", B): 0.1}


def test_a_search_that_was_misled_is_no_worse_than_one_of_dense_formats(problem: Any, evaluator: Any) -> None:
    """Sparse formats look half as lossy as they should and lose four times that."""
    names = ("int8", "int4-g64", "int2-g64", "6:8/int3-g64", "4:8x16/int4-g64")

    class Misled(evaluator):  # type: ignore[misc]
        def estimate(self, path: str, config: LayerConfig) -> float:
            return float(self.loss(path, config))

        def kurtosis(self, path: str) -> float:
            return 3.0

        def truth(self, recipe: Any) -> float:
            lost = {path: self.loss(path, c) for path, c in recipe.items()}
            return sum(x * (1 if family_of(recipe[path].format) == DENSE else 4) for path, x in lost.items())

    made = problem(max_drop=0.05, formats=names)
    misled = search(made, Misled())
    plain = search(dense_alone(made), Misled())
    assert "corrected" in {c.tier for c in misled.trace}
    assert misled.feasible and plain.feasible
    assert misled.winner.bytes <= 1.005 * plain.winner.bytes
    assert misled.winner.score.relative_drop <= 0.05
    assert search(made, Misled()) == misled
