"""Byte budgets that the tiers divide, and what they divide them among."""

from __future__ import annotations

import dataclasses

from toolchain.search.dense_screening import is_large
from toolchain.search.problem import Problem
from toolchain.search.screening import sparse_options

NEAR_SHARES = (0.9, 1.0)
"""Of the memory limit of a large model that also has a limit of loss: its budgets. Without one nothing below the limit
can win."""

LARGEST_BITS = 8
"""The largest byte budget gives every layer about this many bits."""


def dense_alone(problem: Problem) -> Problem:
    """The problem without sparse options where a layer has others: the baseline that sparse formats have to beat."""
    left = {path: tuple(c for c in o if c not in sparse_options(o)) for path, o in problem.options.items()}
    return dataclasses.replace(problem, options={path: left[path] or o for path, o in problem.options.items()})


def budgets(problem: Problem) -> list[int]:
    """Byte budgets from the smallest possible to about LARGEST_BITS everywhere, in equal ratios, and the user's own."""
    low = problem.smallest_bytes
    if is_large(problem) and problem.constraints.max_bytes is not None:
        most = problem.constraints.max_bytes
        shares = NEAR_SHARES if problem.constraints.max_drop is not None else NEAR_SHARES[-1:]
        return sorted({max(round(most * share), low) for share in shares}) if most >= low else [low]
    top = problem.tree.fixed_bytes
    for layer in problem.tree.layers:
        sizes = [problem.layer_bytes(layer, c) for c in problem.options[layer.path]]
        top += max((s for s in sizes if s <= layer.params * (LARGEST_BITS + 1) / 8), default=min(sizes))
    count = problem.effort.budgets
    steps = {round(low * (top / low) ** (i / (count - 1))) for i in range(count)} if top > low else {low}
    if problem.constraints.max_bytes is not None and problem.constraints.max_bytes >= low:
        steps.add(problem.constraints.max_bytes)
    return sorted(steps)
