"""The search: sensitivities, then the tiers global, block and module, then the selection under all constraints."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from exporters.formats.catalog import family_of
from exporters.formats.families import DENSE
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.files.progress import Progress
from toolchain.search.activations import activation_tier
from toolchain.search.budgets import budgets, dense_alone
from toolchain.search.correction import corrected, sparse_factor
from toolchain.search.dense_screening import is_large
from toolchain.search.frontier import frontier, meets, select
from toolchain.search.narrowing import narrowed
from toolchain.search.posterior import with_estimates
from toolchain.search.problem import Evaluator, Problem
from toolchain.search.screening import screened, sparse_options
from toolchain.search.sensitivity import sensitivities
from toolchain.search.store import recipe_key
from toolchain.search.tiers import Losses, block_tier, global_tier, module_tier
from toolchain.search.values import Candidate, SearchResult

LEAST_STEP = 0.004
"""The bisection ends when two budgets differ by less than this share."""

LEAST_CORRECTION = 0.1
"""The correction of sparse layers is skipped if it would be smaller than this share."""

HOPELESS = 1.5
"""A division of bytes is not evaluated if it is expected to lose so many times what surely misses the loss limit."""


class OutOfTime(Exception):
    """The time limit has passed; the results so far remain valid."""


@dataclass
class Trace:
    """All candidates so far. A recipe is evaluated once, even if several tiers propose it.

    factor: actual loss of sparse layers over that in `losses` (see correction.py).
    """

    problem: Problem
    evaluator: Evaluator
    losses: dict[tuple[str, LayerConfig], float]
    on_candidate: Callable[[Candidate], None]
    candidates: dict[str, Candidate] = field(default_factory=dict)
    factor: float = 1.0

    def loss(self, path: str, config: LayerConfig) -> float:
        """What a layer alone is expected to cost in a choice."""
        if (path, config) not in self.losses:
            self.losses[path, config] = self.evaluator.loss(path, config)
        return self.losses[path, config]

    def predicted(self, recipe: Recipe) -> float:
        """Loss that the layers of a recipe are expected to cost, nats per token."""
        return sum(self.loss(path, config) for path, config in recipe.items())

    def attempt(self, recipe: Recipe, tier: str, why: str) -> None:
        key = recipe_key(recipe)
        if key not in self.candidates:
            score = self.evaluator.evaluate(recipe)
            predicted = self.predicted(recipe)
            size, ms = self.problem.bytes(recipe), self.problem.predicted_ms(recipe)
            candidate = Candidate(
                recipe=recipe, bytes=size, predicted=predicted, score=score, tier=tier, why=why, predicted_ms=ms
            )
            self.candidates[key] = candidate
            self.on_candidate(candidate)

    def hopeless(self, recipe: Recipe) -> bool:
        """Whether it would surely miss the loss limit: dense formats that are expected to lose clearly less did. What
        sparse ones lose is expected less well, so that they prove nothing."""
        most, losses = self.problem.constraints.max_drop, self.expected
        if most is None:
            return False
        expected = sum(losses.get(pair, 0.0) for pair in recipe.items())
        surely = (c for c in self.estimated if 2 * c.drop - c.upper > most)  # its lower bound
        missed = (c.predicted for c in surely if all(family_of(x.format) == DENSE for x in c.recipe.values()))
        return HOPELESS * min(missed, default=math.inf) < expected

    def estimated_for(self, recipe: Recipe) -> Candidate:
        """The posterior estimate of an evaluated recipe, given all candidates so far."""
        return next(c for c in self.estimated if c.recipe == recipe)

    @property
    def estimated(self) -> tuple[Candidate, ...]:
        tried = self.candidates.values()
        if self.factor == 1.0:
            return with_estimates(tuple(tried))
        losses = self.expected
        return with_estimates(
            [dataclasses.replace(c, predicted=sum(losses[i] for i in c.recipe.items())) for c in tried]
        )

    @property
    def expected(self) -> Mapping[tuple[str, LayerConfig], float]:
        """The losses by which recipes are proposed and estimated."""
        return self.losses if self.factor == 1.0 else corrected(self.losses, self.factor)


def search(
    problem: Problem,
    evaluator: Evaluator,
    on_candidate: Callable[[Candidate], None] = lambda candidate: None,
    progress: Progress = lambda stage, done, total: None,
) -> SearchResult:
    """Run every tier, that of rounded inputs last; `OutOfTime` from the evaluator ends the search with the best so far.

    Deterministic: the same problem and the same answers give the same result, so that a journal of answers makes a
    search resumable anywhere.

    Raises:
        OutOfTime: before anything was evaluated.
    """
    problem, screening = screened(problem, evaluator, lambda done, total: progress("screening", done, total))
    left = narrowed(problem, evaluator, lambda done, total: progress("narrowing", done, total))
    problem, screening = left, screening and screening.after(problem, left)
    seen = sensitivities(problem, evaluator, lambda done, total: progress("sensitivity", done, total))
    trace = Trace(problem, evaluator, {(s.layer, s.config): s.loss for s in seen}, on_candidate)
    chosen: Recipe | None = None
    try:
        _tiers(trace, progress)
        _fall_back(trace)
        chosen = _rounded_activations(trace)
    except OutOfTime:
        if not trace.candidates:
            raise
    candidates = trace.estimated
    winner, feasible = select(candidates, problem.constraints)
    if chosen is not None and winner.recipe != chosen:
        winner = next(c for c in candidates if c.recipe == chosen)
        feasible = meets(winner, problem.constraints)
    return SearchResult(
        winner=winner,
        feasible=feasible,
        frontier=frontier(candidates),
        trace=candidates,
        sensitivities=seen,
        screening=screening,
    )


def _tiers(trace: Trace, progress: Progress) -> None:
    """All tiers but the last. What breaks the memory limit cannot win: it is tried if nothing within keeps the limits,
    to tell what would, unless the model is large. Then only the best uniform recipe is tried, to compare with."""
    problem = trace.problem
    uniform, larger_uniform = within_first(problem, list(global_tier(problem)), lambda pair: problem.bytes(pair[0]))
    ladder, larger = within_first(problem, budgets(problem), lambda budget: budget)
    uniform = uniform or larger_uniform[-1:]
    if is_large(problem):
        uniform = [min(uniform, key=lambda pair: trace.predicted(pair[0]))]
    _global_tier(trace, uniform, progress)
    free = any(len(options) > 1 for options in problem.options.values())
    if free:
        _local_tiers(trace, ladder or larger[:1], progress)
    if not is_large(problem) and not select(trace.estimated, problem.constraints)[1]:
        _global_tier(trace, larger_uniform, progress)
        if free:
            _local_tiers(trace, larger, progress)
    if free and problem.constraints.max_drop is not None:
        _close_in(trace, problem.constraints.max_drop, budgets(problem), progress)


T = TypeVar("T")


def within_first(problem: Problem, tried: Sequence[T], size: Callable[[T], int]) -> tuple[list[T], list[T]]:
    """What keeps the memory limit, and what does not; size: bytes."""
    most = problem.constraints.max_bytes
    over = [one for one in tried if most is not None and size(one) > most]
    return [one for one in tried if one not in over], over


def _global_tier(trace: Trace, recipes: Sequence[tuple[Recipe, str]], progress: Progress) -> None:
    trace.evaluator.expect(recipes=[recipe for recipe, _ in recipes])
    for i, (recipe, name) in enumerate(recipes):
        trace.attempt(recipe, "global", name)
        progress("global tier", i + 1, len(recipes))


def _rounded_activations(trace: Trace) -> Recipe:
    """The recipe of the last tier, which starts from the winner of the others."""
    start = select(trace.estimated, trace.problem.constraints)[0].recipe

    def attempt(recipe: Recipe, why: str) -> Candidate:
        trace.attempt(recipe, "inputs", why)
        return trace.estimated_for(recipe)

    return activation_tier(trace.problem, lambda: trace.estimated_for(start), trace.loss, attempt)


def _fall_back(trace: Trace) -> None:
    """Try more bits, within the memory limit, if no candidate so far keeps the constraints."""
    constraints = trace.problem.constraints
    for name, recipe in trace.problem.wider:
        fits = constraints.max_bytes is None or trace.problem.bytes(recipe) <= constraints.max_bytes
        if constraints.max_drop is not None and fits and not select(trace.estimated, constraints)[1]:
            trace.attempt(recipe, "global", name)


def _local_tiers(trace: Trace, ladder: list[int], progress: Progress) -> None:
    """One format per block cannot beat one per module in as many bytes: of a large model it is not tried."""
    if not is_large(trace.problem):
        _climb(trace, "block", block_tier, trace.problem, ladder, progress)
    _climb(trace, "module", module_tier, trace.problem, ladder, progress)
    if any(map(sparse_options, trace.problem.options.values())):
        _climb(trace, "dense", module_tier, dense_alone(trace.problem), ladder, progress)
        factor = sparse_factor(tuple(trace.candidates.values()), trace.losses)
        if factor > 1 + LEAST_CORRECTION:
            trace.factor = factor
            _climb(trace, "corrected", module_tier, trace.problem, ladder, progress)


def _climb(
    trace: Trace, tier: str, propose: Callable[[Problem, Losses, int], Recipe | None], problem: Problem,
    ladder: list[int], progress: Progress,
) -> None:  # fmt: skip
    """Evaluate what a tier proposes for every budget, the largest first, so that hopeless ones are known."""
    ladder = ladder[::-1]
    proposed = [propose(problem, trace.expected, budget) for budget in ladder]
    wanted = [recipe for recipe in proposed if recipe is not None and not trace.hopeless(recipe)]
    trace.evaluator.expect(recipes=wanted)
    for i, (budget, recipe) in enumerate(zip(ladder, proposed, strict=True)):
        if recipe is not None and not trace.hopeless(recipe):
            trace.attempt(recipe, tier, f"at most {budget} bytes")
        progress(f"{tier} tier", i + 1, len(ladder))


def _close_in(trace: Trace, max_drop: float, ladder: list[int], progress: Progress) -> None:
    """Approach the smallest model that surely keeps the drop limit, by module-tier budgets between two of the ladder.

    Every step also tries dense formats alone, so that sparse layers that lose more than expected do not end it.
    """
    steps, dense = trace.problem.effort.bisections, dense_alone(trace.problem)
    low = trace.problem.smallest_bytes
    for step in range(steps):
        high = min((c.bytes for c in trace.estimated if c.upper <= max_drop), default=0)
        low = max([low, *(b for b in ladder if b < high)])
        if high - low < LEAST_STEP * high:
            return
        budget = round(math.sqrt(low * high))
        recipes = [module_tier(problem, trace.expected, budget) for problem in (trace.problem, dense)]
        trace.evaluator.expect(recipes=[recipe for recipe in recipes if recipe is not None])
        for recipe in recipes:
            if recipe is not None:
                trace.attempt(recipe, "module", f"closing in, {budget} bytes")
        if not any(c.upper <= max_drop for c in trace.estimated if c.recipe in recipes):
            low = budget
        progress("closing in", step + 1, steps)
