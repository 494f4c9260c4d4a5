"""The Pareto frontier of the candidates, and the selection of one under constraints."""

from __future__ import annotations

import math
from collections.abc import Sequence

from toolchain.search.problem import Constraints
from toolchain.search.values import Candidate

OBJECTIVE = (
    "among the candidates that meet both constraints, the least J = w * drop / max_drop + (1 - w) * bytes / max_bytes; "
    "w = 1/2 with both constraints, 1 with a memory limit alone or none, 0 with a drop limit alone; drop is the upper "
    "95 % bound of the relative loss, estimated from its measurement and the layers' sensitivities"
)


def frontier(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The estimated candidates that lose less than every smaller one, by rising bytes."""
    best: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.bytes, c.drop)):
        if not best or candidate.drop < best[-1].drop:
            best.append(candidate)
    return tuple(best)


def meets(candidate: Candidate, constraints: Constraints, *, surely: bool = False) -> bool:
    """Whether a candidate keeps all constraints, time as predicted; surely: also with the upper bound of its drop."""
    within_bytes = constraints.max_bytes is None or candidate.bytes <= constraints.max_bytes
    within_time = constraints.max_ms is None or (candidate.predicted_ms or 0.0) <= constraints.max_ms
    drop = candidate.upper if surely else candidate.drop
    return within_bytes and within_time and (constraints.max_drop is None or drop <= constraints.max_drop)


def objective(candidate: Candidate, constraints: Constraints) -> float:
    """J of OBJECTIVE: smaller is better."""
    if constraints.max_drop is None:
        return candidate.upper
    if constraints.max_bytes is None:
        return float(candidate.bytes)
    return 0.5 * candidate.upper / max(constraints.max_drop, 1e-9) + 0.5 * candidate.bytes / constraints.max_bytes


def excess(candidate: Candidate, constraints: Constraints) -> float:
    """Euclidean norm of the relative excess over each constraint; 0 if all are kept."""
    over_bytes = candidate.bytes / constraints.max_bytes - 1 if constraints.max_bytes is not None else 0.0
    over_drop = 0.0
    if constraints.max_drop is not None:
        over_drop = (candidate.drop - constraints.max_drop) / max(constraints.max_drop, 1e-3)
    over_time = (candidate.predicted_ms or 0.0) / constraints.max_ms - 1 if constraints.max_ms is not None else 0.0
    return math.hypot(max(over_bytes, 0.0), max(over_drop, 0.0), max(over_time, 0.0))


def select(candidates: Sequence[Candidate], constraints: Constraints) -> tuple[Candidate, bool]:
    """The winner among estimated candidates, and whether it meets the limits; who surely meets them comes first.

    If none does, the one that misses them least, and False.
    """
    for surely in (True, False):
        feasible = [c for c in candidates if meets(c, constraints, surely=surely)]
        if feasible:
            return min(feasible, key=lambda c: (objective(c, constraints), c.bytes)), True
    return min(candidates, key=lambda c: (excess(c, constraints), c.bytes)), False
