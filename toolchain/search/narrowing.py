"""Options of large models that are compressed: those that a division of the memory limit chooses.

Screening by estimates leaves a large model thousands of pairs of a layer and a format, of which a search delivers one
per layer. Here a division proposes, what it proposes is compressed, and what that truly loses corrects the estimates of
all that was not, until a division proposes nothing new.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping

from toolchain.compress.recipe import Recipe
from toolchain.files.progress import StepProgress
from toolchain.search.budgets import budgets, dense_alone
from toolchain.search.dense_screening import is_large
from toolchain.search.problem import Evaluator, LayerChoice, Problem
from toolchain.search.tiers import global_tier, module_tier

SAMPLED = 8
"""Layers that are compressed in every format first, so that its estimates can be corrected."""

MOST_ROUNDS = 8
"""Divisions proposed one after the other at most. What each leads to corrects the estimates for the next."""

LOWER_SHARES = (0.6, 0.75)
"""Of the largest budget: further budgets where a limit of loss may lead the search below the memory limit."""


def narrowed(
    problem: Problem, evaluator: Evaluator, progress: StepProgress = lambda done, total: None
) -> Problem:  # fmt: skip
    """The problem of a large model with the options that were compressed here; any other problem as it is.

    A layer keeps an option for every budget of the tiers, and the best uniform recipe within the limit keeps all of
    its own. Where no division fits the limit, all options stay.
    """
    if not is_large(problem):
        return problem
    believed = Believed(problem, evaluator, progress)
    believed.compress(_samples(problem))
    uniform = _best_uniform(problem, believed)
    believed.compress(uniform.items())
    for _ in range(MOST_ROUNDS):
        proposed = _divisions(problem, believed)
        if not proposed:
            return problem
        if not believed.compress(pair for recipe in proposed for pair in recipe.items()):
            break
    kept = {
        path: tuple(c for c in own if len(own) == 1 or (path, c) in believed.measured)
        for path, own in problem.options.items()
    }
    return dataclasses.replace(problem, options=kept)


class Believed:
    """What every option is believed to lose: measured where it was compressed, else a corrected estimate.

    measured: losses of the compressed options, nats per token.
    """

    def __init__(self, problem: Problem, evaluator: Evaluator, progress: StepProgress) -> None:
        self.measured: dict[LayerChoice, float] = {}
        self._evaluator, self._progress = evaluator, progress
        self._exact = {x.path: x.exact for x in problem.tree.layers}
        free = [(path, c) for path, own in problem.options.items() for c in own if len(own) > 1]
        self._estimates = {(p, c): 0.0 if self._exact[p] == c.format else evaluator.estimate(p, c) for p, c in free}
        self._only = {(path, own[0]): 0.0 for path, own in problem.options.items() if len(own) == 1}

    def compress(self, wanted: Iterable[LayerChoice]) -> bool:
        """Measure what was not yet; False if nothing was new."""
        new = [x for x in dict.fromkeys(wanted) if x in self._estimates and x not in self.measured]
        self._evaluator.expect(losses=[(p, c) for p, c in new if self._exact[p] != c.format])
        for path, config in new:
            exact = self._exact[path] == config.format
            self.measured[path, config] = 0.0 if exact else self._evaluator.loss(path, config)
            self._progress(len(self.measured), len(self._estimates))
        return bool(new)

    def losses(self) -> Mapping[LayerChoice, float]:
        """Of all options. An estimate is multiplied with the median of measured / estimated in its format."""
        factors = self._factors()
        corrected = {x: loss * factors.get(x[1].format, 1.0) for x, loss in self._estimates.items()}
        return {**self._only, **corrected, **self.measured}

    def _factors(self) -> dict[str, float]:
        ratios: dict[str, list[float]] = {}
        for pair, loss in self.measured.items():
            if self._estimates[pair] > 0 and loss > 0:
                ratios.setdefault(pair[1].format, []).append(math.log(loss / self._estimates[pair]))
        return {name: math.exp(statistics.median(own)) for name, own in ratios.items()}


def _samples(problem: Problem) -> list[LayerChoice]:
    """All options of layers that lie evenly between the first and the last."""
    free = [x.path for x in problem.tree.layers if len(problem.options[x.path]) > 1]
    count = min(SAMPLED, len(free))
    paths = [free[(2 * i + 1) * len(free) // (2 * count)] for i in range(count)]
    return [(path, config) for path in paths for config in problem.options[path]]


def _best_uniform(problem: Problem, believed: Believed) -> Recipe:
    """Of the recipes of one format that keep the memory limit the one that loses least; else the smallest."""
    losses, recipes = believed.losses(), [recipe for recipe, _ in global_tier(problem)]
    most = problem.constraints.max_bytes or 0
    loss: Callable[[Recipe], float] = lambda recipe: sum(losses[pair] for pair in recipe.items())  # noqa: E731
    within = [recipe for recipe in recipes if problem.bytes(recipe) <= most]
    return min(within, key=loss) if within else min(recipes, key=problem.bytes)


def _divisions(problem: Problem, believed: Believed) -> list[Recipe]:
    """The best division of every budget, and the best of dense formats alone; empty if one is impossible."""
    ladder = budgets(problem)
    if problem.constraints.max_drop is not None:
        low = problem.smallest_bytes
        ladder = sorted({*ladder, *(max(round(ladder[-1] * share), low) for share in LOWER_SHARES)})
    losses = believed.losses()
    found = [module_tier(some, losses, b) for some in (problem, dense_alone(problem)) for b in ladder]
    return [] if None in found else [recipe for recipe in found if recipe is not None]
