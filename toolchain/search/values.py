"""Values of the search: candidates, sensitivities and its result."""

from __future__ import annotations

import math
from dataclasses import dataclass

from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.quality.reference import Score
from toolchain.search.screening import Screening


@dataclass(frozen=True)
class Candidate:
    """A recipe that was evaluated.

    bytes: weights and states as stored. predicted: the sum of its layers' sensitivities, nats per token. score: as
    measured. drop, upper: the relative drop as estimated from both, and its one-sided 95 % bound (see posterior.py).
    tier, why: who proposed it. predicted_ms: time per token on the target, predicted from its costs; None without any.
    """

    recipe: Recipe
    bytes: int
    predicted: float
    score: Score
    tier: str
    why: str
    drop: float = math.nan
    upper: float = math.nan
    predicted_ms: float | None = None


@dataclass(frozen=True)
class Sensitivity:
    """Expected loss of one layer alone in one choice, nats per token, and its bytes."""

    layer: str
    config: LayerConfig
    loss: float
    bytes: int


@dataclass(frozen=True)
class SearchResult:
    """The winner, the frontier (rising bytes, falling drop), and all candidates in the order of their evaluation."""

    winner: Candidate
    feasible: bool
    frontier: tuple[Candidate, ...]
    trace: tuple[Candidate, ...]
    sensitivities: tuple[Sensitivity, ...]
    screening: Screening | None = None
