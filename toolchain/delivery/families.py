"""What every family of sparse formats gave in a search, beside dense formats in as many bytes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from exporters.formats.families import DENSE, SPARSE, family_of
from toolchain.compress.recipe import Recipe
from toolchain.delivery.reports.data import FamilyRow
from toolchain.search.screening import hull_at
from toolchain.search.values import Candidate, SearchResult

FLOOR = 1e-3
"""Drops are compared as if they were at least so large: smaller ones are noise."""


def family_rows(result: SearchResult) -> tuple[FamilyRow, ...]:
    """A row for every sparse family that was tried: its candidate that does best beside the dense ones."""
    tried = [c for c in result.trace if math.isfinite(c.drop)]
    dense = [c for c in tried if set(_families(c.recipe)) <= {DENSE}]
    used = _families(result.winner.recipe)
    rows = []
    for family in SPARSE:
        own = [c for c in tried if family in _families(c.recipe)]
        if own:
            best = min(own, key=lambda c: (_beside(c, dense), c.bytes))
            rows.append(_row(family, used[family], best, dense))
    return tuple(rows)


def _families(recipe: Recipe) -> Counter[str]:
    """Layers of every family."""
    return Counter(family_of(choice.format) for choice in recipe.values())


def _beside(candidate: Candidate, dense: Sequence[Candidate]) -> float:
    """Its drop over that of dense formats in as many bytes; infinite where no dense candidate is so small."""
    reached = _dense_drop(candidate, dense)
    return math.inf if reached is None else max(candidate.drop, FLOOR) / max(reached, FLOOR)


def _dense_drop(candidate: Candidate, dense: Sequence[Candidate]) -> float | None:
    """Between the dense candidates around its bytes; None where none is so small."""
    if not any(c.bytes <= candidate.bytes for c in dense):
        return None
    return hull_at([(c.bytes, c.drop) for c in dense], candidate.bytes)


def _row(family: str, layers: int, best: Candidate, dense: Sequence[Candidate]) -> FamilyRow:
    formats = Counter(c.format for c in best.recipe.values() if family_of(c.format) == family)
    named = ", ".join(f"{n} x {f}" for f, n in formats.most_common())
    beside = _dense_drop(best, dense)
    near = min(dense, key=lambda c: abs(c.bytes - best.bytes), default=None) if beside is not None else None
    return FamilyRow(
        family, layers, named, best.bytes, best.drop, best.upper, best.predicted_ms, beside,
        near.predicted_ms if near else None,
    )  # fmt: skip
