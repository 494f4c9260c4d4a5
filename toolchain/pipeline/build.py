"""The stages in one straight line: calibrate, search, compress, tune, deliver. An export is a build from a plan."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Encoded
from targets.cpus.catalog import named_cpu
from targets.cpus.energy import Activity
from targets.device.quantities import parse_seconds
from toolchain.delivery.boards import MeasuredHere
from toolchain.delivery.deliver import Delivered, Destination, deliver
from toolchain.estimate.latency import priced
from toolchain.files.outputs import check_output
from toolchain.files.workspace import BEST_PLAN, clear_staging, digest_of, workspace, write_whole
from toolchain.model.catalog import LoadedModel
from toolchain.pipeline.calibrate import Calibrated, Notifier, Say, calibrate, evaluator_of
from toolchain.pipeline.cluster import DaskWorkers, workers_for
from toolchain.pipeline.job import Job, of_plan, pinned_formats, read_calibration
from toolchain.pipeline.spec import to_yaml
from toolchain.quality.accuracy import AnyReference, reference_for
from toolchain.search.evaluator import ModelEvaluator
from toolchain.search.frontier import frontier, select
from toolchain.search.layout import encoded_layer, with_layouts
from toolchain.search.plan import Plan, plan_of
from toolchain.search.posterior import with_estimates
from toolchain.search.problem import Problem
from toolchain.search.search import OutOfTime, search
from toolchain.search.values import Candidate, SearchResult
from toolchain.tuning.distil import Schedule
from toolchain.tuning.objective import OBJECTIVES
from toolchain.tuning.refine import refined
from toolchain.tuning.stage import piece_tokens, tuned

SEARCH_SHARE = 0.7
"""Share of --max-time that the search may use; the rest is for export, validation and measurement."""


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """A plan, every layer as the plan stores it, the fp32 model's predictions on the evaluation text, how active
    the inputs of its layers are; later: what was done with layers since, by path."""

    model: LoadedModel
    plan: Plan
    encoded: Mapping[str, Encoded]
    reference: AnyReference
    activity: Mapping[str, Activity]
    later: Mapping[str, str] = field(default_factory=dict)


def build(job: Job, *, force: bool, resume: bool, notifier: Notifier) -> Delivered:
    """Search and deliver. A build that is stopped anywhere leaves its work folder, from which `resume` goes on.

    Raises:
        SlmcError: any stage failed; there is nothing at the output then.
    """
    check_output(job.spec.output, force=force)
    with workspace(job.spec.output, job.inputs(), resume=resume) as folder:
        with workers_for(job, folder, notifier) as workers:
            compressed = _searched_and_compressed(job, folder, notifier, workers)
            compressed = finished(job, compressed, folder, notifier, workers)
        return delivered(job, compressed, notifier, destination_of(job, folder, force=force))


def export(job: Job, plan: Plan, *, force: bool, resume: bool, notifier: Notifier) -> Delivered:
    """Carry a plan out: all of `build` that comes after the search.

    Raises:
        SlmcError: any stage failed; there is nothing at the output then.
    """
    check_output(job.spec.output, force=force)
    job = of_plan(job, plan)
    if job.calibration.sha256 != plan.calibration_sha256:
        notifier.say("note: the plan was made with another calibration text; the codes will differ from the search's")
    with workspace(
        job.spec.output, job.inputs() | {"plan": digest_of(dataclasses.asdict(plan))}, resume=resume
    ) as folder:
        calibrated = calibrate(job, folder, notifier)
        reference = reference_for(calibrated.model.forward, job.evaluation.reading)
        compressed = compressed_by(calibrated, plan, reference)
        del calibrated
        compressed = finished(job, compressed, folder, notifier)
        return delivered(job, compressed, notifier, destination_of(job, folder, force=force))


def find(job: Job, *, resume: bool, notifier: Notifier) -> tuple[Plan, SearchResult]:
    """The first half of a build: the plan, and the search behind it."""
    with (
        workspace(job.spec.output, job.inputs(), resume=resume) as folder,
        workers_for(job, folder, notifier) as workers,
    ):
        began = time.monotonic()
        calibrated = calibrate_with(job, folder, notifier, workers)
        plan, result, _ = _searched(calibrated, folder, began, notifier, workers)
        write_whole(job.spec.output, plan.to_json())
        return plan, result


def calibrate_with(job: Job, folder: Path, notifier: Notifier, workers: DaskWorkers | None) -> Calibrated:
    """Calibration side by side, where there are workers, who know of it then."""
    calibrated = calibrate(job, folder, notifier, workers.statistics if workers else None)
    if workers:
        workers.serve(calibrated)
    return calibrated


def _searched_and_compressed(
    job: Job, folder: Path, notifier: Notifier, workers: DaskWorkers | None
) -> Compressed:  # fmt: skip
    """Of the search only what delivery needs is kept: its statistics and models are the larger part of the memory."""
    began = time.monotonic()
    calibrated = calibrate_with(job, folder, notifier, workers)
    plan, _, reference = _searched(calibrated, folder, began, notifier, workers)
    return compressed_by(calibrated, plan, reference)


def _searched(
    calibrated: Calibrated, folder: Path, began: float, notifier: Notifier, workers: DaskWorkers | None
) -> tuple[Plan, SearchResult, AnyReference]:
    """began: time.monotonic() at the start of the command, which --max-time counts from."""
    job = calibrated.job
    cpu = named_cpu(job.spec.target)
    problem = priced(job.problem, calibrated.model, cpu, job.spec.threads, job.requirements.max_latency_ms)
    evaluator = evaluator_of(calibrated, folder, time_left(job, began), workers)
    plan, result = plan_for(calibrated, problem, evaluator, folder, notifier)
    return plan, result, evaluator.reference


def time_left(job: Job, began: float) -> Callable[[], float]:
    """Seconds that the search may still take; began: time.monotonic() at the start of the command."""
    given = job.spec.max_time
    limit = parse_seconds(given, "--max-time") if given is not None else float("inf")
    return lambda: SEARCH_SHARE * limit - (time.monotonic() - began)


def plan_for(
    calibrated: Calibrated, problem: Problem, evaluator: ModelEvaluator, folder: Path, notifier: Notifier
) -> tuple[Plan, SearchResult]:
    """Search; the best plan so far is kept in the work folder.

    Raises:
        SlmcError: --max-time was over before anything was evaluated.
    """
    job = calibrated.job
    best = _BestSoFar(job, problem, folder, notifier.say)
    try:
        result = search(problem, evaluator, best.consider, notifier.progress)
    except OutOfTime as error:
        raise SlmcError(
            f"--max-time {job.spec.max_time}: over before anything was evaluated; give more, or --effort quick"
        ) from error
    plan = _with_layouts(job, calibrated, plan_of(result, job.plan_source()))
    write_whole(folder / BEST_PLAN, plan.to_json())
    return plan, result


def _with_layouts(job: Job, calibrated: Calibrated, plan: Plan) -> Plan:
    """The plan with layers input-major where calibration finds their inputs mostly zero."""
    if job.spec.layout == "dense":
        return plan
    tree, zeros = calibrated.model.tree, {path: 1 - found.nonzero for path, found in calibrated.activity.items()}
    fixed = pinned_formats(job.spec.layer, tree)
    return dataclasses.replace(plan, recipe=dict(with_layouts(plan.recipe, tree, zeros, fixed)))


def compressed_by(calibrated: Calibrated, plan: Plan, reference: AnyReference) -> Compressed:
    encoded = {path: encoded_layer(calibrated.layers, path, config) for path, config in plan.recipe.items()}
    return Compressed(
        model=calibrated.model, plan=plan, encoded=encoded, reference=reference, activity=calibrated.activity
    )


def finished(
    job: Job, compressed: Compressed, folder: Path, notifier: Notifier, workers: DaskWorkers | None = None
) -> Compressed:
    """What comes between compression and delivery: refinement and tuning, where they are asked for."""
    model, encoded, spec = compressed.model, compressed.encoded, job.spec
    later: dict[str, str] = {}
    if refines(job):
        encoded = _refined(job, compressed, notifier, workers)
        later = {path: "+refined" for path in encoded if encoded[path] is not compressed.encoded[path]}
    if spec.tune:
        schedule = Schedule(spec.tune, objective=OBJECTIVES[spec.tune_for])
        text = read_calibration(spec, model, piece_tokens(model))
        model, encoded = tuned(model, encoded, text, schedule, folder, notifier.progress, notifier.say)
        linear = (layer.path for layer in model.tree.layers if layer.kind == "linear")
        later |= {path: later.get(path, "") + "+tuned" for path in linear}
    return dataclasses.replace(compressed, model=model, encoded=encoded, later=later)


def delivered(job: Job, compressed: Compressed, notifier: Notifier, destination: Destination) -> Delivered:
    """The artifact."""
    return deliver(
        compressed.model, compressed.plan, compressed.encoded, compressed.reference, job.evaluation, destination,
        notifier.progress, activity=compressed.activity, later=compressed.later,
    )  # fmt: skip


def refines(job: Job) -> bool:
    """Whether layers are compressed again after the search. A classifier's sentences, and a model on disk, are not read
    block by block."""
    able = job.model.weight_storage == "memory" and job.model.classes is None
    return able and (job.spec.refine == "always" or (job.spec.refine == "auto" and job.problem.effort.refines))


def _refined(
    job: Job, compressed: Compressed, notifier: Notifier, workers: DaskWorkers | None
) -> Mapping[str, Encoded]:  # fmt: skip
    found = refined(
        compressed.model, compressed.plan.recipe, compressed.encoded, job.calibration.ids,
        lambda done, total: notifier.progress("refinement", done, total),
        workers.compressed_again if workers else None,
    )  # fmt: skip
    if found is None:
        return compressed.encoded
    notifier.say(found.text())
    return found.encoded


def destination_of(job: Job, folder: Path, *, force: bool) -> Destination:
    """Where the artifact goes; the staging folder is free."""
    return Destination(
        staging=clear_staging(folder),
        output=job.spec.output,
        force=force,
        libraries=job.libraries,
        programs=job.programs,
        calibration=read_calibration(job.spec, job.model) if job.programs else None,
        configuration=to_yaml(job.spec),
        measurer=MeasuredHere(named_cpu(job.spec.target)),
        threads=job.spec.threads,
        seed=job.spec.seed,
    )


class _BestSoFar:
    """Print every candidate, and keep the plan of the best one on disk."""

    def __init__(self, job: Job, problem: Problem, folder: Path, say: Say) -> None:
        self._job, self._problem, self._folder, self._say = job, problem, folder, say
        self._tried: list[Candidate] = []
        self._best: Candidate | None = None

    def consider(self, candidate: Candidate) -> None:
        self._tried.append(candidate)
        share = candidate.bytes / self._problem.tree.bytes_fp32
        score, ms = candidate.score, candidate.predicted_ms
        self._say(
            f"{candidate.tier:7} {candidate.why:30} {candidate.bytes / 1e6:8.2f} MB {share:7.2%}  "
            f"{score.to_text()}  KL {score.kl_mean:.4f}" + (f"  {ms:.3g} ms predicted" if ms is not None else "")
        )
        candidates = with_estimates(self._tried)
        winner, feasible = select(candidates, self._problem.constraints)
        if self._best is None or winner.recipe != self._best.recipe:
            self._best = winner
            result = SearchResult(
                winner=winner, feasible=feasible, frontier=frontier(candidates), trace=candidates, sensitivities=()
            )
            write_whole(self._folder / BEST_PLAN, plan_of(result, self._job.plan_source()).to_json())
