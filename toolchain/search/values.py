"""The values that the search hands on: what a candidate costs, what it knows, and why it was tried."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """What happens to one layer."""

    format: str
    method: str


Recipe = dict[str, Choice]
"""A total map: every layer path of the model to its choice."""


@dataclass(frozen=True)
class Score:
    """A candidate's quality on the evaluation text.

    relative_drop: metric / reference - 1, > 0 is worse. upper: its one-sided 95 % bound, from the paired per-token
    differences to the fp32 model. kl_mean in nats per token.
    """

    perplexity: float
    relative_drop: float
    upper: float
    kl_mean: float
    top1_agreement: float


@dataclass(frozen=True)
class Candidate:
    """A recipe that was evaluated: bytes as stored (weights and states), quality, the tier that proposed it and why."""

    recipe: Recipe
    bytes: int
    score: Score
    tier: str
    why: str


@dataclass(frozen=True)
class Sensitivity:
    """What one layer alone loses in one choice: KL divergence to the fp32 model in nats per token, and its bytes."""

    layer: str
    choice: Choice
    kl: float
    bytes: int


@dataclass(frozen=True)
class SearchResult:
    """The winner, the frontier that it is one point of (rising bytes, falling drop), and everything tried, in order."""

    winner: Candidate
    feasible: bool
    frontier: tuple[Candidate, ...]
    trace: tuple[Candidate, ...]
    sensitivities: tuple[Sensitivity, ...]
