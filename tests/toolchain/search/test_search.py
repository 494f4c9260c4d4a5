"""The whole search with losses that add up: what it finds, that it ends, resumes, repeats nothing, keeps its word."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.search.problem import Effort, Problem
from toolchain.search.search import OutOfTime, search
from toolchain.search.store import Journal, recipe_key
from toolchain.search.tiers import global_tier
from toolchain.search.values import Candidate, SearchResult


def keys(result: SearchResult) -> list[str]:
    return [recipe_key(c.recipe) for c in result.trace]


def smallest_true_bytes(problem: Problem, evaluator: Any, max_drop: float) -> int:
    """The fewest bytes of any recipe whose true loss keeps the limit, by merging layers one after another."""
    scale, best = evaluator.scale, [(0.0, problem.tree.fixed_bytes)]
    for layer in problem.tree.layers:
        pairs = [(evaluator.loss(layer.path, c), problem.layer_bytes(layer, c)) for c in problem.options[layer.path]]
        merged = sorted((size + more, loss + lost) for (loss, size), (lost, more) in itertools.product(best, pairs))
        best = []
        for size, loss in merged:
            if not best or loss < best[-1][0]:
                best.append((loss, size))
    return min(size for loss, size in best if 2.718281828 ** (scale * loss) - 1 <= max_drop)


def test_with_a_memory_limit_the_winner_keeps_it_and_beats_every_uniform_model(problem: Any, evaluator: Any) -> None:
    made, fake = problem(max_bytes=22_000), evaluator()
    result = search(made, fake)
    assert result.feasible
    assert result.winner.bytes <= 22_000
    within = [recipe for recipe, _ in global_tier(made) if made.bytes(recipe) <= 22_000]
    assert 0 < len(within) < 6
    assert fake.truth(result.winner.recipe) < 0.8 * min(fake.truth(recipe) for recipe in within)


@pytest.mark.parametrize("max_drop", [0.3, 0.05, 0.01])
def test_with_a_drop_limit_the_winner_keeps_it_in_few_bytes(problem: Any, evaluator: Any, max_drop: float) -> None:
    made, fake = problem(max_drop=max_drop), evaluator()
    result = search(made, fake)
    assert result.feasible
    assert result.winner.drop == pytest.approx(result.winner.score.relative_drop)
    assert result.winner.score.relative_drop <= max_drop
    least = smallest_true_bytes(made, fake, max_drop)
    assert least <= result.winner.bytes <= 1.06 * least
    uniform = [made.bytes(r) for r, _ in global_tier(made) if 2.718281828 ** fake.truth(r) - 1 <= max_drop]
    assert result.winner.bytes < min(uniform)


def test_under_both_limits_both_are_kept(problem: Any, evaluator: Any) -> None:
    result = search(problem(max_bytes=25_000, max_drop=0.2), evaluator(noise=0.002))
    assert result.feasible
    assert result.winner.bytes <= 25_000
    assert result.winner.upper <= 0.2


def test_noise_does_not_mislead_it(problem: Any, evaluator: Any) -> None:
    """With noise of half a percent the true loss of the winner still keeps a limit of 5 %, give or take the noise."""
    for noise in (0.001, 0.005):
        made, fake = problem(max_drop=0.05), evaluator(noise=noise)
        result = search(made, fake)
        assert result.feasible
        assert fake.truth(result.winner.recipe) < 0.05 + noise
        assert result.winner.bytes < 1.3 * smallest_true_bytes(made, fake, 0.05)


@pytest.mark.parametrize("limits", [{}, {"max_bytes": 22_000}, {"max_drop": 0.05}, {"max_bytes": 9, "max_drop": 0.01}])
def test_what_comes_back_hangs_together(problem: Any, evaluator: Any, limits: dict[str, Any]) -> None:
    made, fake = problem(**limits), evaluator(noise=0.001)
    told: list[Candidate] = []
    result = search(made, fake, told.append)
    assert [c.recipe for c in told] == [c.recipe for c in result.trace] == fake.calls
    assert len(set(keys(result))) == len(result.trace)  # no recipe is evaluated twice
    assert result.winner in result.trace
    assert set(map(id, result.frontier)) <= set(map(id, result.trace))
    assert [c.bytes for c in result.frontier] == sorted(c.bytes for c in result.frontier)
    assert [c.drop for c in result.frontier] == sorted((c.drop for c in result.frontier), reverse=True)
    assert {c.tier for c in result.trace} == {"global", "block", "module"}
    for c in result.trace:
        assert c.recipe.keys() == made.options.keys()
        assert all(config in made.options[path] for path, config in c.recipe.items())
        assert c.bytes == made.bytes(c.recipe)
        assert c.predicted == pytest.approx(fake.truth(c.recipe) / fake.scale)
    assert len(result.sensitivities) == 1 + 7 * 6
    assert {(s.layer, s.config) for s in result.sensitivities} == {
        (path, c) for path, options in made.options.items() for c in options
    }


def test_without_limits_the_least_drop_wins(problem: Any, evaluator: Any) -> None:
    result = search(problem(), evaluator())
    assert result.feasible
    assert result.winner.upper == min(c.upper for c in result.trace)


def test_the_same_question_has_the_same_answer(problem: Any, evaluator: Any) -> None:
    one, other = (search(problem(max_drop=0.05), evaluator(noise=0.002)) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("time", [1, 4, 9])
def test_an_interrupted_search_goes_on_and_repeats_nothing(
    problem: Any, evaluator: Any, tmp_path: Path, time: int
) -> None:
    made = problem(max_drop=0.05)
    whole_evaluator = evaluator(noise=0.002)
    whole = search(made, whole_evaluator)
    assert len(whole_evaluator.calls) > 9
    first = evaluator(Journal(tmp_path / "journal"), time=time, noise=0.002)
    partial = search(made, first)
    assert len(first.calls) == time == len(partial.trace)
    second = evaluator(Journal(tmp_path / "journal"), noise=0.002)
    resumed = search(made, second)
    assert resumed == whole
    assert first.calls + second.calls == whole_evaluator.calls
    third = evaluator(Journal(tmp_path / "journal"), noise=0.002)
    assert search(made, third) == whole
    assert third.calls == []


def test_out_of_time_gives_the_best_so_far(problem: Any, evaluator: Any) -> None:
    result = search(problem(max_bytes=22_000), evaluator(time=2))
    assert [c.why for c in result.trace] == ["int4-g64", "int3-g64"]  # what takes more cannot win
    assert result.feasible
    assert result.winner.score.relative_drop == min(c.score.relative_drop for c in result.trace)
    late = search(problem(max_bytes=22_000, max_drop=1e-9), evaluator(time=1))
    assert not late.feasible
    assert late.winner.why == "int4-g64"  # all that was tried


def test_out_of_time_before_anything_was_tried(problem: Any, evaluator: Any) -> None:
    with pytest.raises(OutOfTime):
        search(problem(), evaluator(time=0))


def test_other_errors_are_not_swallowed(problem: Any, evaluator: Any) -> None:
    class Broken(evaluator):  # type: ignore[misc]
        def evaluate(self, recipe: Recipe) -> Any:
            raise MemoryError

    with pytest.raises(MemoryError):
        search(problem(), Broken())


@pytest.mark.parametrize(
    ("limits", "nearest"),
    [
        ({"max_bytes": 1000}, lambda trace: min(c.bytes for c in trace)),
        ({"max_drop": 1e-9}, lambda trace: min(trace, key=lambda c: c.drop).bytes),
    ],
)
def test_limits_that_cannot_be_kept_give_the_nearest(problem: Any, evaluator: Any, limits: Any, nearest: Any) -> None:
    result = search(problem(**limits), evaluator())
    assert not result.feasible
    assert result.winner.bytes == nearest(result.trace)
    assert len(result.trace) > 6 or "max_drop" in limits


def test_what_breaks_the_memory_limit_is_tried_only_where_nothing_within_keeps_the_loss(
    problem: Any, evaluator: Any
) -> None:
    kept = search(problem(max_bytes=25_000, max_drop=0.2), evaluator())
    assert kept.feasible and all(c.bytes <= 25_000 for c in kept.trace)
    missed = search(problem(max_bytes=13_500, max_drop=0.01), evaluator())
    assert not missed.feasible
    assert min(c.bytes for c in missed.trace if c.drop <= 0.01) > 13_500


def test_what_surely_misses_the_loss_ends_what_would_lose_more(problem: Any, evaluator: Any) -> None:
    """fp16 loses something: no division of bytes that is expected to lose half as much again is evaluated."""
    result = search(problem(max_drop=1e-9), evaluator())
    assert {c.tier for c in result.trace} == {"global"} and not result.feasible
    tried = {drop: search(problem(max_drop=drop), evaluator()).trace for drop in (0.01, None)}
    assert len(tried[0.01]) < len(tried[None]) + problem().effort.bisections


def test_limits_that_contradict_each_other(problem: Any, evaluator: Any) -> None:
    made = problem(max_bytes=13_500, max_drop=0.001)
    result = search(made, evaluator())
    assert not result.feasible
    assert result.winner.bytes > 13_500 or result.winner.drop > 0.001


def test_pins_are_kept_by_every_candidate(problem: Any, evaluator: Any) -> None:
    pins = {"head": "int5", "blocks.0.value": "int2-g64", "emb": "fp16"}
    result = search(problem(max_drop=0.5, pins=pins), evaluator())
    for c in result.trace:
        assert {path: c.recipe[path].format for path in pins} == pins


def test_everything_pinned_is_one_candidate(problem: Any, evaluator: Any) -> None:
    pins = {layer.path: "int4-g64" for layer in problem().tree.layers if layer.path != "emb"}
    fake = evaluator()
    result = search(problem(max_bytes=10**6, pins=pins), fake)
    assert len(result.trace) == len(fake.calls) == 1
    assert result.feasible
    assert result.winner.recipe["head"] == LayerConfig("int4-g64", "range")


def test_only_the_formats_that_are_allowed_are_used(problem: Any, evaluator: Any) -> None:
    result = search(problem(max_drop=0.05, formats=("int4-g*", "int8")), evaluator())
    used = {config.format for c in result.trace for path, config in c.recipe.items() if path != "emb"}
    assert used == {"int4-g32", "int4-g64", "int4-g128", "int8"}


def test_signs_cost_nothing_and_are_not_asked_about(problem: Any, evaluator: Any) -> None:
    class Asked(evaluator):  # type: ignore[misc]
        def loss(self, path: str, config: LayerConfig) -> float:
            assert config.format != "sign"
            return float(super().loss(path, config))

    class Plain(Asked):
        def truth(self, recipe: Recipe) -> float:
            return float(super().truth({p: c for p, c in recipe.items() if c.format != "sign"}))

    result = search(problem(), Plain())
    assert [s.loss for s in result.sensitivities if s.layer == "emb"] == [0.0]


def test_more_effort_comes_closer(problem: Any, evaluator: Any) -> None:
    formats = problem().effort.formats
    sizes = []
    for budgets, bisections in ((4, 1), (12, 10)):
        effort = Effort("e", 0, 0, budgets, bisections, "range", formats)
        sizes.append(search(problem(max_drop=0.03, effort=effort), evaluator()).winner.bytes)
    least = smallest_true_bytes(problem(), evaluator(), 0.03)
    assert least <= sizes[1] < sizes[0]
    assert sizes[1] < 1.02 * least


def test_progress_of_every_stage_is_told(problem: Any, evaluator: Any) -> None:
    told: list[tuple[str, int, int]] = []
    search(problem(max_drop=0.05), evaluator(), progress=lambda *event: told.append(event))
    stages = [stage for stage, _ in itertools.groupby(told, key=lambda event: event[0])]
    assert stages == ["sensitivity", "global tier", "block tier", "module tier", "closing in"]
    for stage in stages[:-1]:
        steps = [(done, total) for name, done, total in told if name == stage]
        assert steps == [(i + 1, len(steps)) for i in range(len(steps))]
