"""The last tier: 8-bit inputs for as many products as the constraints allow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from exporters.formats.catalog import format_named
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.model.tree import ModelTree
from toolchain.search.frontier import meets
from toolchain.search.problem import Problem
from toolchain.search.values import Candidate

ACTIVATIONS = ("auto", "fp32", "int8", "search")
"""What a user may ask for: no product, every product, or as many as the limits allow; see `asked_activations`."""

FREE_DROP = 1e-2
"""Without a drop limit, or where it is missed anyway, rounding may raise the drop's upper bound so much.

A guess: SmolLM2-135M loses half of it, and is a third faster.
"""

BISECTIONS = 4
"""Recipes tried between all products and none."""

Attempt = Callable[[Recipe, str], Candidate]
"""Evaluates a recipe, given why, and returns it as estimated."""


def asked_activations(activations: str, tree: ModelTree) -> str:
    """One of ACTIVATIONS as the search takes it: `auto` is search, and fp32 where rounding would make spikes flip."""
    if activations != "auto":
        return activations
    return "fp32" if tree.spikes else "search"


def rounded(recipe: Recipe, paths: Sequence[str]) -> Recipe:
    """The recipe with the inputs of these layers rounded to 8 bits."""
    return recipe | {path: dataclasses.replace(recipe[path], activations="int8") for path in paths}


def products(problem: Problem, recipe: Recipe) -> list[str]:
    """The layers whose product can take rounded inputs."""
    linear = (layer for layer in problem.tree.layers if layer.kind == "linear")
    return [x.path for x in linear if format_named(recipe[x.path].format).input_group(x.cols) is not None]


def activation_tier(
    problem: Problem, winner: Callable[[], Candidate], loss: Callable[[str, LayerConfig], float], attempt: Attempt
) -> Recipe:
    """The winner's recipe with inputs rounded wherever that keeps what the winner keeps.

    All products first; if that is too much, those that are expected to lose most keep their inputs, the fewest that
    bisection finds.

    Args:
        winner: the best candidate so far, as estimated beside everything tried: it moves a little with each attempt.
        loss: what a layer is expected to cost in a choice.
    """
    start = winner().recipe
    paths = products(problem, start)
    if problem.activations == "fp32" or not paths:
        return start

    def costs(path: str) -> float:
        return loss(path, dataclasses.replace(start[path], activations="int8")) - loss(path, start[path])

    ranked = sorted(paths, key=costs)
    every = attempt(rounded(start, ranked), f"int8 inputs in all {len(ranked)} products")
    if problem.activations == "int8" or _keeps(every, winner(), problem):
        return every.recipe
    best, few, many = start, 0, len(ranked)
    for _ in range(BISECTIONS):
        count = (few + many) // 2
        if count in (few, many):
            break
        tried = attempt(rounded(start, ranked[:count]), f"int8 inputs in {count} products")
        if _keeps(tried, winner(), problem):
            best, few = tried.recipe, count
        else:
            many = count
    return best


def _keeps(candidate: Candidate, winner: Candidate, problem: Problem) -> bool:
    """Whether a candidate keeps the limits as surely as the winner does, or costs next to nothing where none holds."""
    constraints = problem.constraints
    if constraints.max_drop is None or not meets(winner, constraints):
        return candidate.upper <= winner.upper + FREE_DROP
    return meets(candidate, constraints, surely=meets(winner, constraints, surely=True))
