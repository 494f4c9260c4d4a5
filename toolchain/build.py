"""The main job in one straight line: read, calibrate, search, compress, export, validate, measure, package, report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from exporters.errors import SlmcError
from exporters.formats.base import Encoded
from toolchain.deliver import Delivered, deliver
from toolchain.delivery.plan import Plan, plan_of
from toolchain.evidence.classes import AnyReference
from toolchain.evidence.zeros import zero_shares
from toolchain.gather import gather_evidence
from toolchain.latency import with_times
from toolchain.model.family import ModelOptions
from toolchain.outputs import check_output
from toolchain.prepare import Prepared, Progress, make_evaluator, pinned_formats
from toolchain.search.evaluator import Evidence
from toolchain.search.frontier import frontier, select
from toolchain.search.judge import judged
from toolchain.search.layout import encoded_layer, with_layouts
from toolchain.search.search import OutOfTime, search
from toolchain.search.values import Candidate, SearchResult
from toolchain.shuffle import parse_pattern, shuffled
from toolchain.tuning.stage import tuned
from toolchain.workspace import BEST_PLAN, clear_staging, workspace, write_whole


@dataclass(frozen=True)
class Found:
    """A finished search, and what is needed to deliver it: the chosen layers as stored, and the fp32 predictions.

    prepared: with the model as it was searched, its channels in another order if that was asked for. The search's own
    evidence and models are let go: they are the larger part of the memory.
    """

    prepared: Prepared

    plan: Plan
    result: SearchResult
    encoded: dict[str, Encoded]
    reference: AnyReference


def build(
    prepared: Prepared, *, force: bool, resume: bool, progress: Progress, say: Callable[[str], None]
) -> Delivered:
    """Search and deliver. A build that is stopped anywhere leaves its work folder, from which `resume` goes on.

    Raises:
        SlmcError: what is wrong; nothing stands at the output then.
    """
    output = prepared.spec.output
    check_output(output, force=force)
    with workspace(output, prepared.inputs(), resume=resume) as folder:
        found = find(prepared, folder, progress, say)
        prepared, encoded = found.prepared, found.encoded
        if found.plan.tune:
            prepared, encoded = tuned(prepared, encoded, found.plan.schedule(), folder, progress, say)
        staging = clear_staging(folder)
        return deliver(prepared, found.plan, encoded, found.reference, staging, force=force, progress=progress)


def find(prepared: Prepared, folder: Path, progress: Progress, say: Callable[[str], None]) -> Found:
    """Calibrate and search, keeping everything paid for in the work folder.

    Raises:
        SlmcError: --max-time was over before anything was evaluated.
    """
    began = time.monotonic()
    prepared = with_times(prepared)
    prepared, evidence = reordered_as_asked(prepared, gather_evidence(prepared, folder, progress), say)
    evaluator, layers = make_evaluator(prepared, evidence, folder, began)
    best = _BestSoFar(prepared, folder, say)
    try:
        result = search(prepared.problem, evaluator, best.consider, progress)
    except OutOfTime as error:
        raise SlmcError(
            f"--max-time {prepared.spec.max_time}: over before anything was evaluated; give more, or --effort quick"
        ) from error
    plan = _with_layouts(prepared, _plan(prepared, result))
    write_whole(folder / BEST_PLAN, plan.to_json())
    encoded = {path: encoded_layer(layers, path, choice) for path, choice in plan.recipe.items()}
    return Found(prepared, plan, result, encoded, evaluator.reference)


def reordered_as_asked(prepared: Prepared, evidence: Evidence, say: Callable[[str], None]) -> tuple[Prepared, Evidence]:
    """Model and evidence with --shuffle carried out, if it was asked for."""
    if prepared.spec.shuffle is None:
        return prepared, evidence
    found = shuffled(prepared.model, evidence, prepared.calibration.ids, *parse_pattern(prepared.spec.shuffle))
    say(found.text())
    return dataclasses.replace(prepared, model=found.model), found.evidence


def _plan(prepared: Prepared, result: SearchResult) -> Plan:
    return plan_of(
        result, prepared.problem.limits, model_sha256=prepared.model.sha256,
        calibration_sha256=prepared.calibration.sha256, calibration_tokens=len(prepared.calibration.ids),
        seed=prepared.problem.seed, effort=prepared.problem.effort.name, max_latency_ms=prepared.max_latency_ms,
        max_rss_bytes=prepared.max_rss_bytes, tune=prepared.spec.tune, tune_for=prepared.spec.tune_for,
        shuffle=prepared.spec.shuffle,
        cache=ModelOptions(prepared.model.forward.context, prepared.model.kv_cache, prepared.model.tree.family),
    )  # fmt: skip


def _with_layouts(prepared: Prepared, plan: Plan) -> Plan:
    """The plan with layers input-major where calibration finds their inputs mostly zero."""
    if prepared.spec.layout == "dense":
        return plan
    tree = prepared.model.tree
    zeros = zero_shares(prepared.model, prepared.calibration.reading)
    fixed = pinned_formats(prepared.spec.layer, tree)
    return dataclasses.replace(plan, recipe=with_layouts(plan.recipe, tree, zeros, fixed))


class _BestSoFar:
    """Says what is found, and keeps the plan of the best candidate on disk."""

    def __init__(self, prepared: Prepared, folder: Path, say: Callable[[str], None]) -> None:
        self._prepared, self._folder, self._say = prepared, folder, say
        self._tried: list[Candidate] = []
        self._best: Candidate | None = None

    def consider(self, candidate: Candidate) -> None:
        self._tried.append(candidate)
        share = candidate.bytes / self._prepared.model.tree.bytes_fp32
        score, ms = candidate.score, candidate.predicted_ms
        self._say(
            f"{candidate.tier:7} {candidate.why:30} {candidate.bytes / 1e6:8.2f} MB {share:7.2%}  "
            f"{score.said()}  KL {score.kl_mean:.4f}" + (f"  {ms:.3g} ms predicted" if ms is not None else "")
        )
        candidates = judged(self._tried)
        winner, feasible = select(candidates, self._prepared.problem.limits)
        if self._best is None or winner.recipe != self._best.recipe:
            self._best = winner
            result = SearchResult(winner, feasible, frontier(candidates), candidates, ())
            write_whole(self._folder / BEST_PLAN, _plan(self._prepared, result).to_json())
