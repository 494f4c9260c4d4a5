"""What measurements teach of a forecast: factors on the parts of a predicted time, and memory beside the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

NOISE: Final = 0.03
"""The least relative standard deviation of a measured time: a guess."""

SPREAD: Final = 0.3
"""Relative standard deviation of a part's factor around the common one: a guess."""


@dataclass(frozen=True)
class TimeSeen:
    """A time per token as the uncorrected law predicts it, in two parts, and as it was measured; milliseconds.

    spread: by what share the measurement may be wrong.
    """

    fixed_ms: float
    layers_ms: float
    measured_ms: float
    spread: float = 0.0


@dataclass(frozen=True)
class Factors:
    """What the two parts of a predicted time are multiplied with."""

    fixed: float = 1.0
    layers: float = 1.0


def factors(seen: Sequence[TimeSeen]) -> Factors:
    """The factors that explain what was measured; 1 without any measurement.

    First a common one, g, by least squares of the relative error; then both parts around it,
        min over f:  sum_i ((f_0 fixed_i + f_1 layers_i) / measured_i - 1)^2 / noise_i^2
                   + sum_j (f_j / g - 1)^2 / SPREAD^2
    so that one measurement gives one factor, and several tell the parts apart. noise_i is the measurement's spread,
    NOISE at least.
    """
    if not seen:
        return Factors()
    parts = np.array([[s.fixed_ms / s.measured_ms, s.layers_ms / s.measured_ms] for s in seen])
    sure = np.array([max(s.spread, NOISE) ** -2 for s in seen])
    whole = parts.sum(1)
    common = float((sure * whole).sum() / (sure * whole**2).sum())
    prior = 1 / (SPREAD * common) ** 2
    normal = parts.T @ (parts * sure[:, None]) + prior * np.eye(2)
    fixed, layers = np.linalg.solve(normal, sure @ parts + prior * common)
    least = common / 100
    return Factors(max(float(fixed), least), max(float(layers), least))


def overhead_bytes(seen: Sequence[tuple[int, int]]) -> int:
    """Memory that a model takes beside its stored bytes, from (stored, measured over the empty runtime): the most."""
    return max((measured - stored for stored, measured in seen), default=0)
