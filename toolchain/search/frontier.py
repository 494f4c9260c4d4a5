"""Which candidates no other beats, and which one a user with given limits should get."""

from __future__ import annotations

import math
from collections.abc import Sequence

from toolchain.search.problem import Limits
from toolchain.search.values import Candidate

OBJECTIVE = (
    "among the candidates that meet both constraints, the least J = w * drop / max_drop + (1 - w) * bytes / max_bytes; "
    "w = 1/2 with both constraints, 1 with a memory limit alone or none, 0 with a drop limit alone; drop is the upper "
    "95 % bound of the relative loss, judged from its measurement and the layers' sensitivities"
)


def frontier(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The judged candidates that lose less than every smaller one, by rising bytes."""
    best: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.bytes, c.drop)):
        if not best or candidate.drop < best[-1].drop:
            best.append(candidate)
    return tuple(best)


def meets(candidate: Candidate, limits: Limits, *, surely: bool = False) -> bool:
    """Whether a judged candidate keeps all limits, time as predicted; surely: also with the upper bound of its drop."""
    within_bytes = limits.max_bytes is None or candidate.bytes <= limits.max_bytes
    within_time = limits.max_ms is None or (candidate.predicted_ms or 0.0) <= limits.max_ms
    drop = candidate.upper if surely else candidate.drop
    return within_bytes and within_time and (limits.max_drop is None or drop <= limits.max_drop)


def objective(candidate: Candidate, limits: Limits) -> float:
    """J of OBJECTIVE: smaller is better."""
    if limits.max_drop is None:
        return candidate.upper
    if limits.max_bytes is None:
        return float(candidate.bytes)
    return 0.5 * candidate.upper / max(limits.max_drop, 1e-9) + 0.5 * candidate.bytes / limits.max_bytes


def excess(candidate: Candidate, limits: Limits) -> float:
    """By how much a candidate misses the limits, each relative to itself; 0 if it keeps them."""
    over_bytes = candidate.bytes / limits.max_bytes - 1 if limits.max_bytes is not None else 0.0
    over_drop = 0.0
    if limits.max_drop is not None:
        over_drop = (candidate.drop - limits.max_drop) / max(limits.max_drop, 1e-3)
    over_time = (candidate.predicted_ms or 0.0) / limits.max_ms - 1 if limits.max_ms is not None else 0.0
    return math.hypot(max(over_bytes, 0.0), max(over_drop, 0.0), max(over_time, 0.0))


def select(candidates: Sequence[Candidate], limits: Limits) -> tuple[Candidate, bool]:
    """The winner among judged candidates, and whether it meets the limits; who surely meets them comes first.

    If none does, the one that misses them least, and False.
    """
    for surely in (True, False):
        feasible = [c for c in candidates if meets(c, limits, surely=surely)]
        if feasible:
            return min(feasible, key=lambda c: (objective(c, limits), c.bytes)), True
    return min(candidates, key=lambda c: (excess(c, limits), c.bytes)), False
