"""The exact division of a byte budget among units under additive losses: a multiple-choice knapsack."""

from __future__ import annotations

from collections.abc import Sequence

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
    result = milp(
        losses / scale,
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(csr_array(sizes[None] / budget), -np.inf, 1 + 1e-12),
        ],
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
    return chosen
