"""The first stage: the model as it will be compressed, what calibration knows of it, and how its recipes are judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from targets.cpus.energy import Activity
from toolchain.calibration.activity import ACTIVITY_TOKENS, input_activity
from toolchain.calibration.statistics import CalibrationStatistics, Elsewhere, gather_statistics
from toolchain.files.progress import Progress
from toolchain.model.catalog import LoadedModel
from toolchain.model.text import first
from toolchain.pipeline.job import Job, with_tree
from toolchain.search.evaluator import ModelEvaluator, Workers, layer_maker
from toolchain.search.problem import needs_entropy
from toolchain.search.store import Journal, LayerStore
from toolchain.search.transformations import ROUNDED_WEIGHTS, decide, transformed
from toolchain.transform.check import checked_difference
from toolchain.transform.shuffle import parse_pattern, shuffled

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Notifier:
    """How a job tells where it is: progress of a stage (name, done, total), and lines of text."""

    progress: Progress
    say: Say


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """The model as it will be compressed, transformed where that pays, its channels in another order if that was asked
    for, and what calibration knows of it; job: with what was decided; layers: what is compressed once is kept."""

    job: Job
    model: LoadedModel
    statistics: CalibrationStatistics
    activity: Mapping[str, Activity]
    layers: LayerStore


def calibrate(job: Job, folder: Path, notifier: Notifier, elsewhere: Elsewhere | None = None) -> Calibrated:
    """What calibration gathers of the model, kept in the work folder; then the transformations that pay, or those of a
    plan; with --shuffle, channels take their new order.

    elsewhere: works the statistics of the model out side by side.
    """
    model = job.model
    notifier.say(f"texts: {job.texts.text()}")
    statistics = gather_statistics(
        model, job.calibration, folder, notifier.progress, seed=job.problem.seed, entropy=needs_entropy(job.problem),
        elsewhere=elsewhere,
    )  # fmt: skip
    job, model, statistics = _transformed(job, statistics, folder, notifier)
    if job.spec.shuffle is not None:
        found = shuffled(model, statistics, job.calibration.ids, *parse_pattern(job.spec.shuffle))
        notifier.say(found.text())
        model, statistics = found.model, found.statistics
    layers = LayerStore(folder / "layers", layer_maker(model, statistics))
    activity = input_activity(model, first(job.calibration.reading, ACTIVITY_TOKENS))
    return Calibrated(job=job, model=model, statistics=statistics, activity=activity, layers=layers)


def _transformed(
    job: Job, statistics: CalibrationStatistics, folder: Path, notifier: Notifier
) -> tuple[Job, LoadedModel, CalibrationStatistics]:
    """The model with its transformations, its statistics, and the job that goes on with it."""
    considered = job.transformations
    if considered is None and job.spec.transform == "auto" and job.model.weight_storage != "memory":
        notifier.say("transform: none was considered, because the matrices stay on disk; more --max-build-memory helps")
    elif considered is None and job.spec.transform == "auto":
        considered = decide(job.problem, job.model, statistics, lambda d, t: notifier.progress("transformations", d, t))
    found = transformed(job.model, statistics, considered or (), job.problem.seed)
    if found.model is job.model:
        return with_tree(job, job.model.tree, considered or ()), job.model, statistics
    checked_difference(job.model, found.model, job.calibration.ids, ROUNDED_WEIGHTS, "--transform")
    notifier.say(found.text())
    changed = found.statistics
    if changed is None:
        changed = gather_statistics(
            found.model, job.calibration, folder, notifier.progress,
            seed=job.problem.seed, entropy=needs_entropy(job.problem), name="transformed",
        )  # fmt: skip
    return with_tree(job, found.model.tree, considered or ()), found.model, changed


def evaluator_of(
    calibrated: Calibrated, folder: Path, time_left: Callable[[], float] = lambda: float("inf"),
    workers: Workers | None = None,
) -> ModelEvaluator:  # fmt: skip
    """The evaluator over the evaluation text; its results are kept in the journal of the work folder."""
    journal = Journal(folder / "journal.jsonl")
    reading = calibrated.job.evaluation.reading
    return ModelEvaluator(
        calibrated.model, calibrated.statistics, reading, calibrated.layers, journal, time_left, workers
    )  # fmt: skip
