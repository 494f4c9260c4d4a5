"""plan.json: the recipe that a search chose and all its results, enough to export and to report."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.artifact.errors import SlmcError
from exporters.artifact.opening import read_json
from exporters.artifact.parsing import parse
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from toolchain.compress.catalog import method_named
from toolchain.compress.recipe import ACTIVATION_BITS, LayerConfig, Recipe
from toolchain.model.text_distance import TextDistance
from toolchain.model.tree import ModelTree
from toolchain.search.frontier import OBJECTIVE
from toolchain.search.outcome import (
    FamilyResult,
    LayerLoss,
    RoundResult,
    TriedCandidate,
    family_results,
    tried_candidates,
)
from toolchain.search.screening import Screening
from toolchain.search.values import SearchResult
from toolchain.transform.transformation import Transformation

PLAN_VERSION = 3

_OLD_OPTIONS = ("seed", "effort", "tune", "tune_for", "context", "kv_cache", "shuffle", "family")
_OLD_REQUIREMENTS = ("max_bytes", "max_drop", "max_latency_ms", "max_rss_bytes")


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What the finished artifact must hold; None where nothing was asked.

    max_bytes: weights and states as stored. max_drop: relative loss of the metric. max_latency_ms: median per generated
    token. max_rss_bytes: peak memory, less that of an empty runtime.
    """

    max_bytes: int | None = None
    max_drop: float | None = None
    max_latency_ms: float | None = None
    max_rss_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The recipe for one model (named by the SHA-256 of its weights), and the search behind it.

    calibration_tokens: how much of the calibration text the methods saw; the recipe's codes depend on it. options: the
    build's options that the result depends on, as in the resolved configuration. feasible: whether the search believes
    that all requirements can be met. families, screening: what sparse formats gave. transformations: what was
    considered before the search, and what the model got. rounds: what was measured on boards while the plan was
    sought. texts: how far calibration and evaluation text are apart.
    """

    plan_version: int
    model_sha256: str
    calibration_sha256: str
    calibration_tokens: int
    options: dict[str, object]
    requirements: Requirements
    objective: str
    feasible: bool
    recipe: dict[str, LayerConfig]
    candidates: tuple[TriedCandidate, ...]
    sensitivities: tuple[LayerLoss, ...]
    families: tuple[FamilyResult, ...] = ()
    screening: Screening | None = None
    transformations: tuple[Transformation, ...] = ()
    rounds: tuple[RoundResult, ...] = ()
    texts: TextDistance | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


@dataclass(frozen=True, kw_only=True)
class PlanSource:
    """What a plan was made for and from; the fields are the plan's own."""

    model_sha256: str
    calibration_sha256: str
    calibration_tokens: int
    options: dict[str, object]
    requirements: Requirements
    transformations: tuple[Transformation, ...] = ()
    texts: TextDistance | None = None


def plan_of(result: SearchResult, source: PlanSource) -> Plan:
    """The plan that a finished search amounts to."""
    sensitivities = tuple(
        LayerLoss(layer=s.layer, format=s.config.format, loss=s.loss, bytes=s.bytes) for s in result.sensitivities
    )
    return Plan(
        plan_version=PLAN_VERSION, model_sha256=source.model_sha256, calibration_sha256=source.calibration_sha256,
        calibration_tokens=source.calibration_tokens, options=source.options, requirements=source.requirements,
        objective=OBJECTIVE, feasible=result.feasible, recipe=dict(result.winner.recipe),
        candidates=tried_candidates(result), sensitivities=sensitivities, families=family_results(result),
        screening=result.screening, transformations=source.transformations, texts=source.texts,
    )  # fmt: skip


def read_plan(path: Path) -> Plan:
    """Read a plan of any model.

    Raises:
        SlmcError: no plan, or one of another version.
    """
    raw = read_json(path, "make a plan with 'slmc search'")
    version = raw.get("plan_version") if isinstance(raw, dict) else None
    if version not in (2, PLAN_VERSION):
        raise SlmcError(f"{path}: plan_version is {version!r}, this slmc reads {PLAN_VERSION}; search again")
    plan: Plan = parse(Plan, _upgraded(raw, path) if version == 2 else raw, str(path))
    return plan


def _upgraded(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    """A plan of version 2, as artifacts were shipped with it, in the layout of version 3."""
    flat = {key: raw[key] for key in raw if key not in {*_OLD_OPTIONS, *_OLD_REQUIREMENTS, "points", "screening"}}
    if "points" not in raw:
        raise SlmcError(f"{path}: missing points; search again")
    return flat | {
        "plan_version": PLAN_VERSION,
        "options": {key: raw[key] for key in _OLD_OPTIONS if raw.get(key) is not None},
        "requirements": {key: raw.get(key) for key in _OLD_REQUIREMENTS},
        "candidates": raw["points"],
    }


def check_plan(plan: Plan, tree: ModelTree, model_sha256: str, where: str) -> None:
    """Raise SlmcError unless a plan was made for this very model, of layers, formats and methods that exist."""
    if plan.model_sha256 != model_sha256:
        found = plan.model_sha256[:12]
        raise SlmcError(f"{where}: made for a model with SHA-256 {found}..., not for this one; search again")
    check_recipe(plan.recipe, tree, where)


def check_recipe(recipe: Recipe, tree: ModelTree, where: str) -> None:
    """Raise SlmcError unless the recipe names every layer of the tree, and formats and methods that exist."""
    wanted = {layer.path for layer in tree.layers}
    if recipe.keys() != wanted:
        odd = sorted(recipe.keys() ^ wanted)[:4]
        raise SlmcError(f"{where}: the recipe must name every layer once; missing or unknown: {', '.join(odd)}")
    for path, config in recipe.items():
        fmt = format_named(config.format)
        method_named(config.method)
        if config.activations not in ACTIVATION_BITS:
            allowed = ", ".join(ACTIVATION_BITS)
            raise SlmcError(f"{where}: unknown activations {config.activations!r}; allowed are {allowed}")
        if config.activations != "fp32" and fmt.input_group(1) is None:
            raise SlmcError(
                f"{where}: layer {path} cannot have {config.activations} activations, because its format "
                f"{config.format} has no product of rounded inputs; give it fp32"
            )


def recipe_bytes(recipe: Recipe, tree: ModelTree) -> int:
    """Weights as stored under a recipe, vectors included, states not."""
    layers = sum(bytes_for(format_named(recipe[x.path].format), x.rows, x.cols) for x in tree.layers)
    return layers + 4 * tree.vector_params
