"""The tiers: what each proposes, and that a finer one is never worse within the same bytes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from exporters.formats.catalog import format_named
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.search.budgets import budgets
from toolchain.search.problem import Problem
from toolchain.search.tiers import Losses, block_tier, global_tier, module_tier, uniform


def losses_of(problem: Problem, evaluator: Any) -> Losses:
    return {(path, c): evaluator.loss(path, c) for path, options in problem.options.items() for c in options}


def predicted(losses: Losses, recipe: Recipe) -> float:
    return sum(losses[item] for item in recipe.items())


def test_the_global_tier_tries_every_format_many_bits_first(problem: Any) -> None:
    made = problem()
    tried = list(global_tier(made))
    assert [name for _, name in tried] == ["fp16", "int8", "int6-g64", "int4-g64", "int3-g64", "int2-g64"]
    for recipe, name in tried:
        assert recipe.keys() == made.options.keys()
        assert recipe["emb"] == LayerConfig("sign", "nearest")
        assert {c.format for path, c in recipe.items() if path != "emb"} == {name}


def test_a_pinned_layer_keeps_its_format_in_the_global_tier(problem: Any) -> None:
    for recipe, _ in global_tier(problem(pins={"head": "int5"})):
        assert recipe["head"] == LayerConfig("int5", "range")
    assert "int5" not in [name for _, name in global_tier(problem(pins={"head": "int5"}))]


def test_everything_pinned_is_one_proposal(problem: Any) -> None:
    paths = [layer.path for layer in problem().tree.layers if layer.path != "emb"]
    ((recipe, name),) = global_tier(problem(pins=dict.fromkeys(paths, "int4-g64")))
    assert name == "everything pinned"
    assert {c.format for c in recipe.values()} == {"sign", "int4-g64"}


def test_where_a_layer_lacks_a_format_it_takes_the_nearest_bits(problem: Any) -> None:
    made = problem()
    options = dict(made.options) | {"head": tuple(c for c in made.options["head"] if c.format in ("fp16", "int3-g64"))}
    recipe = uniform(Problem(made.tree, options, made.constraints, made.effort, 0), LayerConfig("int4-g64", "range"))
    assert recipe["head"].format == "int3-g64"
    assert recipe["blocks.0.key"].format == "int4-g64"


def test_finer_tiers_are_never_worse_within_the_same_bytes(problem: Any, evaluator: Any) -> None:
    made = problem()
    losses = losses_of(made, evaluator())
    strictly = 0
    for recipe, _ in global_tier(made):
        budget = made.bytes(recipe)
        block, module = block_tier(made, losses, budget), module_tier(made, losses, budget)
        assert block is not None
        assert module is not None
        assert block.keys() == module.keys() == made.options.keys()
        assert made.bytes(block) <= budget
        assert made.bytes(module) <= budget
        per_tier = [predicted(losses, r) for r in (module, block, recipe)]
        assert per_tier[0] <= per_tier[1] * (1 + 1e-4) <= per_tier[2] * (1 + 2e-4)
        strictly += per_tier[0] < 0.99 * per_tier[1] < 0.98 * per_tier[2]
    assert strictly >= 3


def test_the_block_tier_gives_a_block_one_format(problem: Any, evaluator: Any) -> None:
    made = problem()
    losses = losses_of(made, evaluator())
    seen = set()
    for budget in budgets(made):
        recipe = block_tier(made, losses, budget)
        assert recipe is not None
        per_block = [{recipe[layer.path].format for layer in block.layers} for block in made.tree.blocks]
        assert all(len(formats) == 1 for formats in per_block)
        seen.add(tuple(min(formats) for formats in per_block))
    assert len(seen) > 3


@pytest.mark.parametrize("room", [1.0, 1.1, 1.5, 2.0, 4.0])
def test_the_block_tier_against_all_assignments(problem: Any, evaluator: Any, room: float) -> None:
    made = problem()
    losses = losses_of(made, evaluator())
    budget = int(made.smallest_bytes * room)
    every = []
    for formats in itertools.product([c.format for c in made.options["head"]], repeat=3):
        recipe: Recipe = {"emb": LayerConfig("sign", "nearest")}
        for block, name in zip(made.tree.blocks[1:], formats, strict=True):
            method = "range" if name.startswith("int") else "nearest"
            recipe |= {layer.path: LayerConfig(name, method) for layer in block.layers}
        if made.bytes(recipe) <= budget:
            every.append(predicted(losses, recipe))
    chosen = block_tier(made, losses, budget)
    assert chosen is not None
    assert predicted(losses, chosen) == pytest.approx(min(every), rel=1.1e-4)


def test_module_tier_against_all_assignments(problem: Any, evaluator: Any) -> None:
    made = problem(formats=("int8", "int4-g64", "int2-g64"))
    losses = losses_of(made, evaluator())
    paths = [layer.path for layer in made.tree.layers]
    budget = int(1.6 * made.smallest_bytes)
    every = [dict(zip(paths, c, strict=True)) for c in itertools.product(*(made.options[p] for p in paths))]
    best = min(predicted(losses, recipe) for recipe in every if made.bytes(recipe) <= budget)
    chosen = module_tier(made, losses, budget)
    assert chosen is not None
    assert predicted(losses, chosen) == pytest.approx(best, rel=1.1e-4)


def test_pins_are_kept_and_paid_for(problem: Any, evaluator: Any) -> None:
    made = problem(pins={"head": "fp16", "blocks.1.gate": "int2-g64"})
    losses = losses_of(made, evaluator())
    for budget in budgets(made):
        for tier in (block_tier, module_tier):
            recipe = tier(made, losses, budget)
            assert recipe is not None
            assert made.bytes(recipe) <= budget
            assert (recipe["head"].format, recipe["blocks.1.gate"].format) == ("fp16", "int2-g64")


def test_too_few_bytes_are_none(problem: Any, evaluator: Any) -> None:
    made = problem()
    losses = losses_of(made, evaluator())
    for tier in (block_tier, module_tier):
        assert tier(made, losses, made.smallest_bytes - 1) is None
        smallest = tier(made, losses, made.smallest_bytes)
        assert smallest is not None
        assert {c.format for path, c in smallest.items() if path != "emb"} == {"int2-g64"}


def test_budgets_rise_evenly_from_the_smallest_to_eight_bits(problem: Any) -> None:
    made = problem()
    ladder = budgets(made)
    int8 = 320 + 800 + 4 * 64 * 66 + 2 * 64 * 130 + 100 * 66
    assert (ladder[0], ladder[-1], len(ladder)) == (made.smallest_bytes, int8, 6)
    ratios = [b / a for a, b in itertools.pairwise(ladder)]
    assert max(ratios) < 1.001 * min(ratios)


@pytest.mark.parametrize(("asked", "included"), [(20_000, True), (10**9, True), (100, False), (None, False)])
def test_the_users_own_budget_is_on_the_ladder_if_it_is_possible(
    problem: Any, asked: int | None, included: bool
) -> None:
    ladder = budgets(problem(max_bytes=asked))
    assert (asked in ladder) is included
    assert ladder == sorted(ladder)


def test_one_possible_size_is_one_budget(problem: Any) -> None:
    made = problem(formats=("int4-g64",))
    assert budgets(made) == [made.smallest_bytes]


def test_formats_without_bits_near_eight_do_not_break_the_ladder(problem: Any) -> None:
    made = problem(formats=("fp16", "fp32"))
    assert budgets(made) == [made.smallest_bytes]
    assert format_named("fp16").bits == 16
