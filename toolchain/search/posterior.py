"""Posterior estimate of a candidate's loss, from its noisy measurement and what its layers' sensitivities predict.

Spikes near their threshold flip, so two recipes of equal quality differ by tenths of a percent on a short text; so does
the fp32 model itself. Sensitivities have no such noise, but an unknown scale. It is fitted to all candidates.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolchain.search.values import Candidate

MODEL_ERROR = 0.5
"""Relative standard deviation of a scaled prediction."""

FLOOR = 1e-4
"""Least standard deviation of a prediction, in nats."""

BIAS_STD = 3e-3
"""Standard deviation of the prior of the fp32 model's bias on a text, in nats."""

LARGEST_SCALE = 10.0
"""Upper bound of the scale; larger ones only occur if the predictions are too small to fit it."""

ONE_SIDED_95 = 1.645


@dataclass(frozen=True)
class Line:
    """Measured loss = bias + scale * predicted, in nats per token."""

    scale: float
    bias: float


def fit(candidates: Sequence[Candidate]) -> Line:
    """The line by least squares with weights 1 / variance, bias ~ N(0, BIAS_STD^2), scale >= 0.

    The variance of a point is that of its measurement and of its scaled prediction, so the fit is repeated.
    """
    noisy = [c for c in candidates if _finite(c) and 0 < c.score.standard_error < math.inf]
    predicted = np.array([c.predicted for c in noisy])
    measured = np.array([math.log1p(c.score.relative_drop) for c in noisy])
    noise = np.array([c.score.standard_error for c in noisy])
    line = Line(0.5, 0.0)
    for _ in range(5 if len(noisy) > 1 and predicted.any() else 0):
        weight = 1 / (noise**2 + (MODEL_ERROR * line.scale * predicted) ** 2 + FLOOR**2)
        # The measurements share one text, so their bias is one draw however many they are.
        bias = float((weight * (measured - line.scale * predicted)).sum() / (weight.sum() + 1 / BIAS_STD**2))
        scale = float((weight * predicted * (measured - bias)).sum() / (weight * predicted**2).sum())
        line = Line(min(max(scale, 0.0), LARGEST_SCALE), bias)
    return line


def with_estimates(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates with their posterior estimates: drop and upper filled in.

        prior   d ~ N(scale p, (MODEL_ERROR scale p)^2 + FLOOR^2),   measurement   m - bias ~ N(d, standard_error^2)

    drop is the posterior mean of d, plus the bias where it is against us, as relative loss; upper its one-sided 95 %
    bound.
    """
    line = fit(candidates)
    return tuple(_with_estimate(c, line) for c in candidates)


def _finite(candidate: Candidate) -> bool:
    return math.isfinite(candidate.score.relative_drop) and math.isfinite(candidate.predicted)


def _with_estimate(candidate: Candidate, line: Line) -> Candidate:
    if not _finite(candidate):
        return dataclasses.replace(candidate, drop=math.inf, upper=math.inf)
    measured, noise = math.log1p(candidate.score.relative_drop), candidate.score.standard_error
    if noise == 0:
        return dataclasses.replace(candidate, drop=math.expm1(measured), upper=math.expm1(measured))
    prior = line.scale * candidate.predicted
    trust = (MODEL_ERROR * prior) ** 2 + FLOOR**2
    precision = 1 / trust + 1 / noise**2
    mean = (prior / trust + (measured - line.bias) / noise**2) / precision + max(line.bias, 0.0)
    upper = mean + ONE_SIDED_95 / math.sqrt(precision)
    return dataclasses.replace(candidate, drop=math.expm1(mean), upper=math.expm1(upper))
