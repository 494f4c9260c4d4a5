"""Messages for a search without a feasible candidate: the nearest constraints that it can keep, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from exporters.formats.dense import FP16, FP32
from targets.device.quantities import bytes_text, percent
from toolchain.search.problem import Problem


class Tried(Protocol):
    """A candidate as far as limits go."""

    @property
    def bytes(self) -> int: ...

    @property
    def drop(self) -> float: ...


def nearest_limits(problem: Problem, tried: Sequence[Tried]) -> str:
    """The nearest limits that some candidate keeps, as options; '' where both limits are kept by one.

    tried: all candidates, as estimated.
    """
    constraints = problem.constraints
    within = [c for c in tried if constraints.max_bytes is None or c.bytes <= constraints.max_bytes]
    keeping = [c for c in tried if constraints.max_drop is None or c.drop <= constraints.max_drop]
    if constraints.max_drop is None or any(c in keeping for c in within):
        return ""
    found = []
    drops = [c.drop for c in within if math.isfinite(c.drop)]
    if drops:
        memory = "" if constraints.max_bytes is None else " in that memory"
        found.append(f"the least drop found{memory} is {percent(min(drops))}: --max-drop {_rounded_up(min(drops))}%")
    if keeping and constraints.max_bytes is not None:
        least = min(c.bytes for c in keeping)
        found.append(f"the least memory found with that drop is {bytes_text(least)}: --max-memory {least}B")
    if not keeping:
        found.append(_why(problem))
    return "; ".join(text for text in found if text)


def _why(problem: Problem) -> str:
    """Why more bits were not tried."""
    wide = {FP16.name, FP32.name}
    if any(config.format in wide for options in problem.options.values() if len(options) > 1 for config in options):
        return ""
    if not problem.wider:
        return "fp16 and fp32 were not tried, because the formats given do not have them"
    sizes = {name: problem.bytes(recipe) for name, recipe in problem.wider}
    larger = [
        f"{name} takes {size} bytes" for name, size in sizes.items() if size > (problem.constraints.max_bytes or size)
    ]
    return f"{', '.join(larger)}, more than the memory limit allows" if larger else ""


def _rounded_up(drop: float) -> str:
    """Percent with two decimals, never less than the drop."""
    return f"{math.ceil(drop * 1e4) / 100:.2f}"
