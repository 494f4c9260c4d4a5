"""plan.json: what a search decided and everything that it saw on the way, enough to export and to report."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from exporters.errors import SlmcError
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from exporters.formats.families import input_group
from exporters.manifest import parse
from exporters.opening import read_json
from toolchain.compress.catalog import method_named
from toolchain.compress.recipe import ACTIVATION_BITS, Choice, Recipe
from toolchain.delivery.families import family_rows
from toolchain.delivery.reports.data import FamilyRow, Point, SensitivityRow
from toolchain.model.family import ModelOptions
from toolchain.model.tree import ModelTree
from toolchain.search.frontier import OBJECTIVE
from toolchain.search.problem import Limits
from toolchain.search.values import SearchResult
from toolchain.tuning.distil import Schedule
from toolchain.tuning.objective import OBJECTIVES

PLAN_VERSION = 2


@dataclass(frozen=True)
class Plan:
    """The recipe for one model (named by the SHA-256 of its weights), and the search behind it.

    max_bytes, max_drop: what the search kept to. max_latency_ms, max_rss_bytes: limits for the finished artifact.
    feasible: whether the search believes that the former are met. calibration_tokens: how much of the calibration text
    the methods saw; the recipe's codes depend on it. tune: steps of end-to-end tuning after compression; tune_for: its
    objective.
    context, kv_cache: of the key-value cache, where there is one. families, screening: what sparse formats gave.
    shuffle: the pattern that inner channels were put in order for. family: how the model was read.
    """

    plan_version: int
    model_sha256: str
    calibration_sha256: str
    calibration_tokens: int
    seed: int
    effort: str
    objective: str
    max_bytes: int | None
    max_drop: float | None
    max_latency_ms: float | None
    max_rss_bytes: int | None
    tune: int
    tune_for: str
    feasible: bool
    recipe: dict[str, Choice]
    points: tuple[Point, ...]
    sensitivities: tuple[SensitivityRow, ...]
    context: int | None = None
    kv_cache: str = "fp32"
    families: tuple[FamilyRow, ...] = ()
    screening: str = ""
    shuffle: str | None = None
    family: str | None = None

    def schedule(self) -> Schedule:
        """How to tune what was chosen."""
        return Schedule(self.tune, objective=OBJECTIVES[self.tune_for])

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def plan_of(
    result: SearchResult, limits: Limits, *, model_sha256: str, calibration_sha256: str, calibration_tokens: int,
    seed: int, effort: str, max_latency_ms: float | None = None, max_rss_bytes: int | None = None, tune: int = 0,
    tune_for: str = "distribution", cache: ModelOptions | None = None, shuffle: str | None = None,
) -> Plan:  # fmt: skip
    """The plan that a finished search amounts to."""
    on_frontier = {id(c) for c in result.frontier}
    points = tuple(
        Point(
            c.bytes,
            c.drop,
            c.upper,
            c.score.kl_mean,
            c.tier,
            c.why,
            id(c) in on_frontier,
            c is result.winner,
            c.predicted_ms,
        )
        for c in result.trace
    )
    cache = cache or ModelOptions()
    rows = tuple(SensitivityRow(s.layer, s.choice.format, s.loss, s.bytes) for s in result.sensitivities)
    return Plan(
        PLAN_VERSION, model_sha256, calibration_sha256, calibration_tokens, seed, effort, OBJECTIVE, limits.max_bytes,
        limits.max_drop, max_latency_ms, max_rss_bytes, tune, tune_for, result.feasible, result.winner.recipe, points,
        rows, cache.context, cache.kv_cache, family_rows(result), result.screening.text() if result.screening else "",
        shuffle, cache.family,
    )  # fmt: skip


def read_plan(path: Path) -> Plan:
    """A plan, for whatever model it was made.

    Raises:
        SlmcError: no plan, or one of another version.
    """
    raw = read_json(path, "make a plan with 'slmc search'")
    version = raw.get("plan_version") if isinstance(raw, dict) else None
    if version != PLAN_VERSION:
        raise SlmcError(f"{path}: plan_version is {version!r}, this slmc reads {PLAN_VERSION}; search again")
    plan: Plan = parse(Plan, raw, str(path))
    return plan


def check_plan(plan: Plan, tree: ModelTree, model_sha256: str, where: str) -> None:
    """Raise SlmcError unless a plan was made for this very model, of layers, formats, methods and an objective that
    exist."""
    if plan.model_sha256 != model_sha256:
        found = plan.model_sha256[:12]
        raise SlmcError(f"{where}: made for a model with SHA-256 {found}..., not for this one; search again")
    if plan.tune_for not in OBJECTIVES:
        raise SlmcError(f"{where}: unknown tune_for {plan.tune_for!r}; allowed are {', '.join(OBJECTIVES)}")
    if plan.tune < 0:
        raise SlmcError(f"{where}: tune is {plan.tune} steps; it must be 0 (no tuning) or more")
    check_recipe(plan.recipe, tree, where)


def check_recipe(recipe: Recipe, tree: ModelTree, where: str) -> None:
    """Raise SlmcError unless the recipe names every layer of the tree, and formats and methods that exist."""
    wanted = {layer.path for layer in tree.layers}
    if recipe.keys() != wanted:
        odd = sorted(recipe.keys() ^ wanted)[:4]
        raise SlmcError(f"{where}: the recipe must name every layer once; missing or unknown: {', '.join(odd)}")
    for path, choice in recipe.items():
        fmt = format_named(choice.format)
        method_named(choice.method)
        if choice.activations not in ACTIVATION_BITS:
            allowed = ", ".join(ACTIVATION_BITS)
            raise SlmcError(f"{where}: unknown activations {choice.activations!r}; allowed are {allowed}")
        if choice.activations != "fp32" and input_group(fmt, 1) is None:
            raise SlmcError(
                f"{where}: layer {path} cannot have {choice.activations} activations, because its format "
                f"{choice.format} has no product of rounded inputs; give it fp32"
            )


def recipe_bytes(recipe: Recipe, tree: ModelTree) -> int:
    """Weights as stored under a recipe, vectors included, states not."""
    layers = sum(bytes_for(format_named(recipe[x.path].format), x.rows, x.cols) for x in tree.layers)
    return layers + 4 * tree.vector_params
