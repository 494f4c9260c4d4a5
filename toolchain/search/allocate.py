"""The exact division of a byte budget among units under additive losses: a multiple-choice knapsack."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

Option = tuple[float, int]
"""Loss and bytes of one way to store a unit."""


def undominated(options: Sequence[Option]) -> list[int]:
    """Indices of the options that no other beats in loss without costing more bytes, in order of rising bytes."""
    kept: list[int] = []
    for i in sorted(range(len(options)), key=lambda i: (options[i][1], options[i][0], i)):
        if not kept or options[i][0] < options[kept[-1]][0]:
            kept.append(i)
    return kept


def smallest_bytes(units: Sequence[Sequence[Option]]) -> int:
    """The least that all units together can take."""
    return sum(min(size for _, size in options) for options in units)


def allocate(units: Sequence[Sequence[Option]], budget: int) -> list[int] | None:
    """For every unit the index of the chosen option: least total loss with total bytes <= budget, None if impossible.

    min sum_u sum_i loss_ui x_ui   s.t.  sum_ui bytes_ui x_ui <= budget,  sum_i x_ui = 1 for every u,  x in {0, 1}
    """
    if smallest_bytes(units) > budget:
        return None
    candidates = [(u, i) for u, options in enumerate(units) for i in undominated(options)]
    losses = np.array([units[u][i][0] for u, i in candidates])
    sizes = np.array([units[u][i][1] for u, i in candidates], dtype=float)
    columns = np.arange(len(candidates))
    one_each = csr_array((np.ones(len(candidates)), ([u for u, _ in candidates], columns)))
    scale = float(losses.max()) or 1.0
    within = LinearConstraint(csr_array(sizes[None] / budget), -np.inf, 1)
    with _silent_stdout():
        result = milp(
            losses / scale,
            constraints=[LinearConstraint(one_each, 1, 1), within],
            integrality=np.ones(len(candidates)),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": 1e-4, "node_limit": 20_000},
        )
    if result.x is None:
        return None
    chosen = [-1] * len(units)
    for (u, i), x in zip(candidates, result.x, strict=True):
        if x > 0.5:
            chosen[u] = i
    return _within(units, chosen, budget)


def _within(units: Sequence[Sequence[Option]], chosen: list[int], budget: int) -> list[int]:
    """The same, or with the cheapest step down where the solver's tolerance let a few bytes too many pass."""
    while sum(units[u][i][1] for u, i in enumerate(chosen)) > budget:
        steps = [
            ((units[u][j][0] - units[u][i][0]) / (units[u][i][1] - units[u][j][1]), u, j)
            for u, i in enumerate(chosen)
            for j in range(len(units[u]))
            if units[u][j][1] < units[u][i][1]
        ]
        _, u, j = min(steps)
        chosen[u] = j
    return chosen


@contextlib.contextmanager
def _silent_stdout() -> Iterator[None]:
    """Keep the solver's stray lines off standard output, where a command's JSON goes."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
