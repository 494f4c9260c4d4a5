"""What a worker process does: opens a job once, as the main process did, and carries out tasks of its search."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exporters.artifact.errors import SlmcError
from targets.device.memory import weigh
from targets.device.verify import file_sha256
from toolchain.compress.recipe import Recipe
from toolchain.pipeline.calibrate import Calibrated, Notifier, calibrate, evaluator_of
from toolchain.pipeline.job import prepare
from toolchain.pipeline.spec import Spec
from toolchain.search.evaluator import ModelEvaluator
from toolchain.search.problem import LayerChoice
from toolchain.transform.transformation import Transformation

INPUTS: Final = ("model", "tokenizer", "calibration", "eval")
"""Options that name files or folders which a worker needs."""


@dataclass(frozen=True)
class WorkFile:
    """A file of a job. role: an option of `INPUTS`, or 'work' for the work folder; name: below what that names, empty
    for itself."""

    role: str
    name: str
    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class WorkerJob:
    """All that a worker must know. folder: the work folder; spec: options as JSON, with paths as they are there.

    files: for workers that do not see these paths. key: what the results depend on.
    """

    key: str
    folder: str
    spec: str
    model_sha256: str
    transformations: tuple[Transformation, ...]
    files: tuple[WorkFile, ...]


@dataclass(frozen=True)
class Answer:
    """What a task gave. seconds, cpu_seconds: it took; peak_bytes: the most that this process ever held; made:
    compressed layers by the names of their files, where the work folder is not shared."""

    values: tuple[Any, ...]
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    made: dict[str, bytes] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Lacking:
    """The answer of a worker that does not see the job's files: what it must be sent first, by SHA-256."""

    sha256: tuple[str, ...]


@dataclass(frozen=True)
class _Opened:
    calibrated: Calibrated
    evaluator: ModelEvaluator
    shared: bool


def loss_task(opened: _Opened, choice: LayerChoice) -> tuple[float, dict[str, bytes]]:
    """What a layer is expected to lose in a config, in which it is compressed for it."""
    path, config = choice
    value = opened.evaluator.loss(path, config)
    file = opened.calibrated.layers.file(path, config)
    return value, {} if opened.shared else {file.name: file.read_bytes()}


def estimate_task(opened: _Opened, choice: LayerChoice) -> tuple[float, dict[str, bytes]]:
    """The same without compressing it."""
    return opened.evaluator.estimate(*choice), {}


def score_task(opened: _Opened, recipe: Recipe) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The score of a recipe."""
    return dataclasses.asdict(opened.evaluator.score(recipe)), {}


TASKS: Final[Mapping[str, Callable[[_Opened, Any], tuple[Any, dict[str, bytes]]]]] = {
    "loss": loss_task,
    "estimate": estimate_task,
    "score": score_task,
}
_OPEN: dict[str, _Opened] = {}
"""The job that this process works for; another one takes its place."""


def carry_out(job: WorkerJob, kind: str, arguments: Sequence[Any]) -> Answer | Lacking:
    """Some tasks of one kind of a job, which is opened by the first.

    Raises:
        SlmcError: this worker reads another model from the same path, or its files are altered.
    """
    began, cpu = time.monotonic(), time.process_time()
    opened = _OPEN.get(job.key)
    if opened is None:
        if lacking := _lacking(job):
            return lacking
        _OPEN.clear()
        opened = _OPEN[job.key] = _open(job)
    found = [TASKS[kind](opened, argument) for argument in arguments]
    made = {name: data for _, files in found for name, data in files.items()}
    return Answer(
        tuple(value for value, _ in found),
        time.monotonic() - began,
        time.process_time() - cpu,
        weigh().peak_bytes,
        made,
    )


def receive(sha256: str, offset: int, data: bytes) -> None:
    """A piece of a file, which is kept under its digest."""
    path = _kept(sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("r+b" if path.exists() else "wb") as file:
        file.seek(offset)
        file.write(data)


def _kept(sha256: str) -> Path:
    return _private() / "files" / sha256


def _private() -> Path:
    """This process's own folder: that which its cluster gave it, where it was started by one."""
    try:
        from distributed import get_worker

        return Path(get_worker().local_directory) / "slmc"
    except (ImportError, ValueError):
        return Path(tempfile.gettempdir()) / "slmc-worker"


def _is_shared(job: WorkerJob) -> bool:
    """Whether the paths mean here what they mean to the main process."""
    return all(Path(f.path).is_file() and Path(f.path).stat().st_size == f.bytes for f in job.files)


def _lacking(job: WorkerJob) -> Lacking | None:
    if _is_shared(job):
        return None
    found = [f.sha256 for f in job.files if not _kept(f.sha256).is_file() or _kept(f.sha256).stat().st_size != f.bytes]
    return Lacking(tuple(dict.fromkeys(found))) if found else None


def _open(job: WorkerJob) -> _Opened:
    spec, folder, shared = json.loads(job.spec), Path(job.folder), _is_shared(job)
    if not shared:
        folder = _laid_out(job, spec)
    made = prepare(Spec(**spec))
    if made.model.sha256 != job.model_sha256:
        raise SlmcError(f"a worker reads another model from {spec['model']}; give all workers the same files")
    silent = Notifier(progress=lambda stage, done, total: None, say=lambda text: None)
    calibrated = calibrate(dataclasses.replace(made, transformations=job.transformations), folder, silent)
    return _Opened(calibrated, evaluator_of(calibrated, folder), shared)


def _laid_out(job: WorkerJob, spec: dict[str, Any]) -> Path:
    """The job's files as they were sent, each in the place where its option looks for it."""
    place = _private() / hashlib.sha256(job.key.encode()).hexdigest()[:16]
    for file in job.files:
        if file_sha256(_kept(file.sha256)) != file.sha256:
            _kept(file.sha256).unlink()
            raise SlmcError(f"{file.path}: a worker received it altered; repeat the command with --resume")
        target = place / file.role / (file.name or Path(file.path).name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to(_kept(file.sha256))
        if file.role in INPUTS:
            spec[file.role] = str(place / file.role if file.name else target)
    return place / "work"
