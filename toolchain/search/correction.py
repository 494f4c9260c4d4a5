"""Correction of the expected loss of sparse layers, fitted to the candidates that were evaluated.

The second-order estimate assumes small, independent errors. Pruning an input causes the same error in every token, so
sparse layers lose more than estimated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from exporters.formats.catalog import family_of
from exporters.formats.families import DENSE
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.search.posterior import FLOOR, MODEL_ERROR
from toolchain.search.values import Candidate

Losses = Mapping[tuple[str, LayerConfig], float]

EXPECTED_SPREAD = 1.0
"""Standard deviation of the prior of the factor, whose mean is 1: a guess."""

MOST = 4.0


def sparse_factor(candidates: Sequence[Candidate], losses: Losses) -> float:
    """f of measured = a (dense + f sparse), where dense and sparse are the expected losses of a recipe's layers; >= 1.

    Least squares with weights 1 / variance, the variance being that of a measurement and of a prediction (see
    posterior.py), and f ~ N(1, EXPECTED_SPREAD^2).
    """
    usable = [c for c in candidates if math.isfinite(c.score.relative_drop) and math.isfinite(c.predicted)]
    sparse = np.array([_sparse(c.recipe, losses) for c in usable])
    whole = np.array([c.predicted for c in usable])
    if not sparse.any():
        return 1.0
    measured = np.array([math.log1p(c.score.relative_drop) for c in usable])
    noise = np.array([min(c.score.standard_error, 1e6) for c in usable])
    scale = _scale(whole, measured, noise)
    weight = 1 / (noise**2 + (MODEL_ERROR * scale * whole) ** 2 + FLOOR**2)
    # measured = a whole + c sparse, f = 1 + c / a; the prior of c is a line of its own.
    prior = 1 / max(scale * EXPECTED_SPREAD, FLOOR) ** 2
    normal = np.array(
        [
            [(weight * whole**2).sum(), (weight * whole * sparse).sum()],
            [(weight * whole * sparse).sum(), (weight * sparse**2).sum() + prior],
        ]
    )
    a, c = np.linalg.solve(normal, [(weight * whole * measured).sum(), (weight * sparse * measured).sum()])
    return float(min(max(1 + c / a, 1.0), MOST)) if a > 0 else 1.0


def corrected(losses: Losses, factor: float) -> dict[tuple[str, LayerConfig], float]:
    """The expected losses with those of sparse choices times the factor."""
    return {(p, c): loss if family_of(c.format) == DENSE else loss * factor for (p, c), loss in losses.items()}


def _sparse(recipe: Recipe, losses: Losses) -> float:
    return sum(losses[path, c] for path, c in recipe.items() if family_of(c.format) != DENSE)


def _scale(whole: np.ndarray, measured: np.ndarray, noise: np.ndarray) -> float:
    """Measured loss per expected nat over all layers; the variances are computed from it."""
    scale = 1.0
    for _ in range(3):
        weight = 1 / (noise**2 + (MODEL_ERROR * scale * whole) ** 2 + FLOOR**2)
        scale = max(float((weight * whole * measured).sum() / max((weight * whole**2).sum(), FLOOR**2)), 0.0)
    return scale
