"""The tiers of QSLM (arXiv 2601.00679): what to try for the whole model, per block, and per module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from exporters.formats.base import stored_bits
from exporters.formats.catalog import format_named
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.search.allocate import Option, allocate
from toolchain.search.problem import Problem
from toolchain.search.screening import sparse_options
from toolchain.search.timed import allocate_within

Losses = Mapping[tuple[str, LayerConfig], float]
"""What a layer alone is expected to cost in a choice, nats per token."""


def uniform(problem: Problem, config: LayerConfig) -> Recipe:
    """Every layer in one choice, where it has it; elsewhere the layer's own with the nearest number of bits."""
    bits = stored_bits(format_named(config.format))
    recipe: Recipe = {}
    for layer in problem.tree.layers:
        options = problem.options[layer.path]
        same = [c for c in options if c.format == config.format]
        recipe[layer.path] = (
            same[0] if same else min(options, key=lambda c: abs(stored_bits(format_named(c.format)) - bits))
        )
    return recipe


def global_tier(problem: Problem) -> Iterator[tuple[Recipe, str]]:
    """One format for the whole model: every dense one that some layer may have, sparse ones that all of them have."""
    free = [options for options in problem.options.values() if len(options) > 1]
    seen: dict[str, LayerConfig] = {}
    for options in free:
        seen |= {c.format: c for c in options if c.format not in seen}
    able = [options for options in free if sparse_options(options)]
    for name in {c.format for options in able for c in sparse_options(options)}:
        if not all(any(c.format == name for c in options) for options in able):
            del seen[name]
    for name in sorted(seen, key=lambda n: (-stored_bits(format_named(n)), n)):
        yield uniform(problem, seen[name]), name
    if not seen:
        yield {path: options[0] for path, options in problem.options.items()}, "everything pinned"


def block_tier(problem: Problem, losses: Losses, budget: int) -> Recipe | None:
    """One format per block, divided so that the sum of losses is least within `budget` bytes."""
    formats = sorted({c.format for options in problem.options.values() for c in options})
    recipes: list[list[Recipe]] = []
    for block in problem.tree.blocks:
        shared = [f for f in formats if all(_has(problem, layer.path, f) for layer in block.layers)]
        variants = [{layer.path: _named(problem, layer.path, f) for layer in block.layers} for f in shared]
        if not variants:
            variants = [{layer.path: problem.options[layer.path][0] for layer in block.layers}]
        recipes.append(variants)
    chosen = _divided(problem, losses, recipes, budget)
    if chosen is None:
        return None
    return {path: c for variants, i in zip(recipes, chosen, strict=True) for path, c in variants[i].items()}


def module_tier(problem: Problem, losses: Losses, budget: int) -> Recipe | None:
    """A format of its own for every layer, divided likewise."""
    layers = problem.tree.layers
    chosen = _divided(problem, losses, [[{x.path: c} for c in problem.options[x.path]] for x in layers], budget)
    if chosen is None:
        return None
    return {layer.path: problem.options[layer.path][i] for layer, i in zip(layers, chosen, strict=True)}


def _divided(problem: Problem, losses: Losses, items: Sequence[Sequence[Recipe]], budget: int) -> list[int] | None:
    """Which variant every item gets: the least losses within the bytes, and within the time if that is limited."""
    costs = [[_cost(problem, variant, losses) for variant in variants] for variants in items]
    room, times, most_ms = budget - problem.tree.fixed_bytes, problem.times, problem.constraints.max_ms
    if times is None or most_ms is None:
        return allocate(costs, room)
    taken = [[sum(times.layer(p, c) for p, c in variant.items()) for variant in variants] for variants in items]
    return allocate_within(costs, taken, room, most_ms - times.fixed_ms)


def _has(problem: Problem, path: str, name: str) -> bool:
    options = problem.options[path]
    return len(options) == 1 or any(c.format == name for c in options)


def _named(problem: Problem, path: str, name: str) -> LayerConfig:
    options = problem.options[path]
    return options[0] if len(options) == 1 else next(c for c in options if c.format == name)


def _cost(problem: Problem, recipe: Recipe, losses: Losses) -> Option:
    sizes = (problem.layer_bytes(layer, recipe[layer.path]) for layer in problem.tree.layers if layer.path in recipe)
    return sum(losses[path, c] for path, c in recipe.items()), sum(sizes)
