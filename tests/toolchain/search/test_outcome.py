"""What is said of a family of sparse formats: the best candidate beside dense ones, by hand."""

from __future__ import annotations

import pytest

from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.quality.reference import Score
from toolchain.search.outcome import FamilyResult, family_results
from toolchain.search.values import Candidate, SearchResult

SCORE = Score(20.0, 20.0, 0.0, 0.01, 0.0, 0.9, 1000)


def recipe(*formats: str) -> Recipe:
    return {f"layer.{i}": LayerConfig(name, "gptq") for i, name in enumerate(formats)}


def candidate(size: int, drop: float, ms: float, *formats: str) -> Candidate:
    return Candidate(recipe(*formats), size, drop, SCORE, "module", "", drop, drop + 0.02, ms)


DENSE = (candidate(100, 0.20, 1.0, "int2-g64", "int2-g64"), candidate(200, 0.10, 2.0, "int4-g64", "int4-g64"))
WORSE = candidate(150, 0.30, 1.5, "2:4/int4-g64", "2:4/int4-g64")
BETTER = candidate(160, 0.11, 1.7, "2:4/int4-g64", "int4-g64")
SMALL = candidate(80, 0.40, 0.5, "4:8x16/int4-g64", "4:8x16/int4-g64")


def rows(*trace: Candidate, winner: Candidate) -> tuple[FamilyResult, ...]:
    return family_results(SearchResult(winner, True, (), trace, ()))


def test_the_best_candidate_of_each_family_beside_the_dense_line() -> None:
    """160 bytes are 0.6 of the way from 100 to 200: dense formats would lose 0.14 there, and the nearest has 200."""
    nm, shared = rows(*DENSE, WORSE, BETTER, SMALL, winner=BETTER)
    assert (nm.family, nm.layers, nm.formats) == ("N:M", 1, "1 x 2:4/int4-g64")
    assert (nm.bytes, nm.drop, nm.predicted_ms, nm.dense_ms) == (160, 0.11, 1.7, 2.0)
    assert nm.dense_drop == pytest.approx(0.14)
    assert nm.verdict == "pays"
    assert (shared.family, shared.layers, shared.formats) == ("N:M of 16 rows", 0, "2 x 4:8x16/int4-g64")
    assert (shared.dense_drop, shared.dense_ms, shared.verdict) == (None, None, "smaller than any dense candidate")


@pytest.mark.parametrize(("drop", "verdict"), [(0.11, "pays"), (0.13, "about even"), (0.15, "does not pay here")])
def test_verdicts_mind_the_noise(drop: float, verdict: str) -> None:
    (row,) = rows(*DENSE, candidate(160, drop, 1.0, "fp4-g16", "int4-g64"), winner=DENSE[0])
    assert row.verdict == verdict


def test_nothing_sparse_was_tried_or_nothing_can_be_said() -> None:
    assert rows(*DENSE, winner=DENSE[0]) == ()
    assert rows(DENSE[0], candidate(150, float("inf"), 1.0, "fp4-g16"), winner=DENSE[0]) == ()
    (alone,) = rows(BETTER, winner=BETTER)
    assert alone.dense_drop is None
