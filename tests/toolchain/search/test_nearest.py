"""What a search falls back to, and what it says where it could not keep its limits."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from exporters.formats.catalog import formats_matching
from toolchain.search.nearest import nearest_limits
from toolchain.search.problem import Problem, layer_options
from toolchain.search.search import search

NARROW = ("int4-g64", "int3-g64", "int2-g64")


def with_wider(made: Problem) -> Problem:
    found = {f: layer_options(made.tree, formats_matching((f,)), {}, "range") for f in ("fp16", "fp32")}
    return dataclasses.replace(made, wider=tuple((f, {p: o[0] for p, o in own.items()}) for f, own in found.items()))


@dataclasses.dataclass(frozen=True)
class One:
    bytes: int
    drop: float


TRIED = (One(100, 0.5), One(200, 0.123401), One(400, 0.02), One(300, float("nan")))


@pytest.mark.parametrize(
    ("max_bytes", "max_drop", "wanted"),
    [
        (250, 0.05, "the least drop found in that memory is 12.3 %: --max-drop 12.35%; "
                    "the least memory found with that drop is 400 B: --max-memory 400B"),
        (90, 0.05, "the least memory found with that drop is 400 B: --max-memory 400B"),
        (None, 0.01, "the least drop found is 2.00 %: --max-drop 2.00%"),
        (400, 0.02, ""),
        (90, None, ""),
        (None, None, ""),
    ],
)  # fmt: skip
def test_the_nearest_limits_are_named(problem: Any, max_bytes: int | None, max_drop: float | None, wanted: str) -> None:
    assert nearest_limits(problem(max_bytes=max_bytes, max_drop=max_drop), TRIED) == wanted


def test_more_bits_are_tried_where_nothing_else_keeps_the_drop(problem: Any, evaluator: Any) -> None:
    made = with_wider(problem(max_drop=1e-3, formats=NARROW))
    assert not search(dataclasses.replace(made, wider=()), evaluator()).feasible
    result = search(made, evaluator())
    assert result.feasible
    assert {c.format for path, c in result.winner.recipe.items() if path != "emb"} == {"fp16"}
    assert nearest_limits(made, result.trace) == ""


@pytest.mark.parametrize("limits", [{"max_drop": 0.9}, {"max_bytes": 30_000}])
def test_more_bits_are_not_tried_where_others_do(problem: Any, evaluator: Any, limits: Any) -> None:
    result = search(with_wider(problem(formats=NARROW, **limits)), evaluator())
    assert {c.format for x in result.trace for c in x.recipe.values()} <= {*NARROW, "sign"}


def test_why_more_bits_were_not_tried(problem: Any, evaluator: Any) -> None:
    """Memory leaves no room, or the formats given have none of them."""
    made = with_wider(problem(max_bytes=30_000, max_drop=1e-3, formats=NARROW))
    result = search(made, evaluator())
    sizes = [made.bytes(recipe) for _, recipe in made.wider]
    assert not result.feasible
    assert f"fp16 takes {sizes[0]} bytes, fp32 takes {sizes[1]} bytes, more than" in nearest_limits(made, result.trace)
    alone = dataclasses.replace(made, wider=())
    assert "fp16 and fp32 were not tried, because the formats given" in nearest_limits(alone, result.trace)
