"""Results of a search as rows: candidates, sensitivities, and the best candidate of each family of sparse formats."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from exporters.formats.catalog import family_of
from exporters.formats.families import DENSE, SPARSE
from toolchain.compress.recipe import Recipe
from toolchain.search.screening import hull_at
from toolchain.search.values import Candidate, SearchResult

FLOOR = 1e-3
"""Drops are compared as if they were at least so large: smaller ones are noise."""


@dataclass(frozen=True)
class TriedCandidate:
    """One evaluated candidate: bytes as stored, relative drop as estimated and its upper bound, who proposed it, why.

    predicted_ms: per generated token on the target, from its measured costs; None without any.
    """

    bytes: int
    drop: float
    upper: float
    kl_mean: float
    tier: str
    why: str
    on_frontier: bool
    winner: bool
    predicted_ms: float | None = None


@dataclass(frozen=True)
class LayerLoss:
    """What one layer alone is expected to lose in one format, nats per token (see toolchain/search/sensitivity.py)."""

    layer: str
    format: str
    loss: float
    bytes: int


@dataclass(frozen=True)
class FamilyResult:
    """Outcome of a family of sparse formats: its candidate with the least drop relative to dense ones.

    layers: of the winner that are stored so. formats: of this family in the candidate. bytes, drop, upper,
    predicted_ms: the candidate's. dense_drop: what dense candidates reach in as many bytes, None where none is so
    small; dense_ms: predicted of the nearest of them.
    """

    family: str
    layers: int
    formats: str
    bytes: int
    drop: float
    upper: float
    predicted_ms: float | None
    dense_drop: float | None
    dense_ms: float | None

    @property
    def verdict(self) -> str:
        if self.dense_drop is None:
            return "smaller than any dense candidate"
        if self.upper <= self.dense_drop:
            return "pays"
        return "about even" if self.drop <= self.dense_drop else "does not pay here"


@dataclass(frozen=True)
class RoundResult:
    """One artifact on one board, as predicted and as measured: median milliseconds per token, and bytes of peak memory
    over the empty runtime. met: whether it holds the limits there. energy_uj: per token, of the processor's counter
    where energy is 'measured', else from published constants. visits: how often it was measured; spread: half of what
    the medians of all repetitions differ by, as a share."""

    round: int
    board: str
    bytes: int
    predicted_ms: float | None
    measured_ms: float
    predicted_rss_bytes: int
    measured_rss_bytes: int
    met: bool
    energy_uj: float
    energy: str
    visits: int = 1
    spread: float = 0.0


def tried_candidates(result: SearchResult) -> tuple[TriedCandidate, ...]:
    """Everything that was evaluated, in order."""
    on_frontier = {id(c) for c in result.frontier}
    return tuple(
        TriedCandidate(
            bytes=c.bytes,
            drop=c.drop,
            upper=c.upper,
            kl_mean=c.score.kl_mean,
            tier=c.tier,
            why=c.why,
            on_frontier=id(c) in on_frontier,
            winner=c is result.winner,
            predicted_ms=c.predicted_ms,
        )
        for c in result.trace
    )


def family_results(result: SearchResult) -> tuple[FamilyResult, ...]:
    """A row for every sparse family that was tried: its candidate with the least drop relative to dense ones."""
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
    return Counter(family_of(config.format) for config in recipe.values())


def _beside(candidate: Candidate, dense: Sequence[Candidate]) -> float:
    """Ratio of its drop to that of dense formats of equal bytes; infinite if no dense candidate is that small."""
    reached = _dense_drop(candidate, dense)
    return math.inf if reached is None else max(candidate.drop, FLOOR) / max(reached, FLOOR)


def _dense_drop(candidate: Candidate, dense: Sequence[Candidate]) -> float | None:
    """Drop of dense formats at its bytes, interpolated on their hull; None if none is that small."""
    if not any(c.bytes <= candidate.bytes for c in dense):
        return None
    return hull_at([(c.bytes, c.drop) for c in dense], candidate.bytes)


def _row(family: str, layers: int, best: Candidate, dense: Sequence[Candidate]) -> FamilyResult:
    formats = Counter(c.format for c in best.recipe.values() if family_of(c.format) == family)
    named = ", ".join(f"{n} x {f}" for f, n in formats.most_common())
    beside = _dense_drop(best, dense)
    near = min(dense, key=lambda c: abs(c.bytes - best.bytes), default=None) if beside is not None else None
    return FamilyResult(
        family=family,
        layers=layers,
        formats=named,
        bytes=best.bytes,
        drop=best.drop,
        upper=best.upper,
        predicted_ms=best.predicted_ms,
        dense_drop=beside,
        dense_ms=near.predicted_ms if near else None,
    )
