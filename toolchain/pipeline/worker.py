"""What a worker process does: opens a job once, as the main process did, and carries out tasks of its search."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Encoded
from targets.device.memory import weigh
from targets.device.verify import file_sha256
from toolchain.calibration.statistics import statistics_part
from toolchain.compress.recipe import Recipe
from toolchain.files.workspace import write_whole
from toolchain.pipeline.calibrate import Calibrated, Notifier, calibrate, evaluator_of
from toolchain.pipeline.job import Job, prepare
from toolchain.pipeline.spec import Spec
from toolchain.search.evaluator import ModelEvaluator
from toolchain.search.problem import LayerChoice
from toolchain.transform.transformation import Transformation
from toolchain.tuning.refine import Again, compressed_again

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
    """All that a worker must know. folder: the work folder; spec: options as JSON, with paths as they are there;
    transformations: None before the job is calibrated.

    files: for workers that do not see these paths. key: what the results depend on.
    """

    key: str
    folder: str
    spec: str
    model_sha256: str
    transformations: tuple[Transformation, ...] | None
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
    """The answer of a worker that does not see the job's files: what it must be sent first, by SHA-256; and of the
    layers that its task needs, the files that it has not compressed itself."""

    sha256: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Opened:
    """A job as a worker knows it: as it was given, and calibrated where it already is. told: layers that the main
    process was asked for."""

    plain: Job
    folder: Path
    shared: bool
    known: tuple[Calibrated, ModelEvaluator] | None
    told: set[str] = dataclasses.field(default_factory=set)

    @property
    def calibrated(self) -> Calibrated:
        assert self.known is not None
        return self.known[0]

    @property
    def evaluator(self) -> ModelEvaluator:
        assert self.known is not None
        return self.known[1]


def statistics_task(opened: _Opened, part: str) -> tuple[bytes | str, dict[str, bytes]]:
    """One part of the statistics: the name of a file in the work folder, or its bytes where that is not shared."""
    job = opened.plain
    found = statistics_part(
        part, job.model, job.calibration.reading, lambda stage, done, total: None, seed=job.problem.seed
    )
    if not opened.shared:
        return save(found), {}
    name = f"statistics.{part}"
    write_whole(opened.folder / name, save(found))
    return name, {}


def again_task(opened: _Opened, wanted: Again) -> tuple[Encoded, dict[str, bytes]]:
    """A layer compressed for other inputs."""
    return compressed_again(opened.calibrated.model, wanted), {}


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
    "statistics": statistics_task,
    "again": again_task,
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
    if kind == "score" and (layers := _foreign_layers(opened, arguments)):
        return Lacking(layers=layers)
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


def _foreign_layers(opened: _Opened, recipes: Sequence[Recipe]) -> tuple[str, ...]:
    """Files of layers that recipes need, and that neither lie here nor were asked for: another worker may have
    compressed them."""
    if opened.shared:
        return ()
    layers = opened.calibrated.layers
    files = (layers.file(path, config) for recipe in recipes for path, config in recipe.items())
    return tuple(dict.fromkeys(f.name for f in files if not f.is_file() and f.name not in opened.told))


def adopt(job: WorkerJob, digests: Mapping[str, str], asked: Sequence[str]) -> None:
    """Take layers that were received among those of a job; who was asked for others did not have them."""
    opened = _OPEN[job.key]
    opened.told.update(asked)
    for name, sha256 in digests.items():
        if file_sha256(_kept(sha256)) == sha256:
            _kept(sha256).replace(opened.calibrated.layers.folder / name)


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


@functools.lru_cache(maxsize=1)
def _prepared(spec: str) -> Job:
    """A job by its options, with the model that was read for the tasks before calibration."""
    return prepare(Spec(**json.loads(spec)))


def _open(job: WorkerJob) -> _Opened:
    spec, folder, shared = json.loads(job.spec), Path(job.folder), _is_shared(job)
    if not shared:
        folder = _laid_out(job, spec)
    made = _prepared(json.dumps(spec))
    if made.model.sha256 != job.model_sha256:
        raise SlmcError(f"a worker reads another model from {spec['model']}; give all workers the same files")
    if job.transformations is None:
        return _Opened(made, folder, shared, None)
    silent = Notifier(progress=lambda stage, done, total: None, say=lambda text: None)
    calibrated = calibrate(dataclasses.replace(made, transformations=job.transformations), folder, silent)
    return _Opened(made, folder, shared, (calibrated, evaluator_of(calibrated, folder)))


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
