"""Workers of a build on Dask: processes here, or those of a scheduler, which give the answers that this one would."""

from __future__ import annotations

import contextlib
import importlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exporters.formats.base import Encoded
from targets.device.quantities import bytes_text
from targets.device.verify import file_sha256
from toolchain.compress.recipe import Recipe
from toolchain.files.progress import Progress
from toolchain.files.workspace import write_whole
from toolchain.pipeline.calibrate import Calibrated, Notifier
from toolchain.pipeline.dask_client import DEATHS, connected_client, explained, memory_bound, workers_of
from toolchain.pipeline.job import Job
from toolchain.pipeline.worker import Answer, Lacking, WorkerJob, adopt, carry_out, receive
from toolchain.pipeline.worker_job import plain_job, worker_job
from toolchain.quality.reference import Score
from toolchain.search.problem import LayerChoice
from toolchain.tuning.refine import Again

PIECE_BYTES: Final = 1 << 23

BATCH, BATCHES = 16, 8
"""The most small tasks that are given out as one; so many for each worker at least."""

BATCHED: Final = ("loss", "estimate")
"""Kinds of small tasks."""

AHEAD: Final = 2
"""Tasks given to every worker at once: the next begins while the answer of the last is on its way."""


@dataclass(frozen=True)
class Traced:
    """One task that was carried out; group: which tasks were given out together; seconds: in its worker."""

    kind: str
    group: int
    seconds: float
    cpu_seconds: float
    worker: str


class DaskWorkers:
    """Implements toolchain.search.evaluator.Workers over a Dask client.

    Until `serve` they know the model as it was given; then the job as it was calibrated.

    trace: every task so far. peak_bytes: the most that any worker held. sent_bytes: of files, to workers that see no
    folder of ours.
    """

    def __init__(self, client: Any, job: Job, folder: Path, progress: Progress) -> None:
        self._client, self._folder, self._progress = client, folder, progress
        self._job = plain_job(job, folder)
        self.trace: list[Traced] = []
        self._group = 0
        self.peak_bytes = self.sent_bytes = 0

    def serve(self, calibrated: Calibrated) -> None:
        """All further tasks are of a job that is calibrated."""
        self._job = worker_job(calibrated, self._folder)

    def statistics(self, parts: Sequence[str]) -> list[bytes]:
        """Implements toolchain.calibration.statistics.Elsewhere."""
        found = dict(self._answers("statistics", parts))
        return [self._taken(found[part]) for part in parts]

    def _taken(self, value: bytes | str) -> bytes:
        """What a worker gave, or left in the work folder."""
        if isinstance(value, bytes):
            return value
        data = (self._folder / value).read_bytes()
        (self._folder / value).unlink()
        return data

    def compressed_again(self, wanted: Sequence[Again]) -> list[Encoded]:
        """Implements toolchain.tuning.refine.Compress."""
        found = {again.path: encoded for again, encoded in self._answers("again", wanted)}
        return [found[again.path] for again in wanted]

    def losses(self, wanted: Sequence[LayerChoice]) -> dict[LayerChoice, float]:
        return dict(self._answers("loss", wanted))

    def estimates(self, wanted: Sequence[LayerChoice]) -> dict[LayerChoice, float]:
        return dict(self._answers("estimate", wanted))

    def scores(self, recipes: Sequence[Recipe]) -> Iterator[tuple[Recipe, Score]]:
        for recipe, value in self._answers("score", recipes):
            yield recipe, Score(**value)

    def _answers(self, kind: str, arguments: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """Every argument with its answer, in the order in which they end; no more are begun once nobody reads."""
        waiting, running = deque(self._together(kind, arguments)), dict[Any, Sequence[Any]]()
        done = 0
        self._group += 1
        with explained():
            try:
                while waiting or running:
                    self._feed(kind, waiting, running)
                    for future in _ended(list(running)):
                        tasks = running.pop(future)
                        answer, worker = future.result()
                        if isinstance(answer, Lacking):
                            self._send(answer, worker)
                            waiting.appendleft(tasks)
                            continue
                        self._take(kind, answer, worker)
                        done += len(tasks)
                        self._progress(f"workers: {kind}", done, len(arguments))
                        yield from zip(tasks, answer.values, strict=True)
            finally:
                for future in running:
                    future.cancel()

    def _together(self, kind: str, arguments: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """Small tasks in batches, so that giving them out costs less than they do; enough of them for all workers."""
        many = len(arguments) // (BATCHES * len(workers_of(self._client)) or 1)
        size = min(BATCH, many or 1) if kind in BATCHED else 1
        for start in range(0, len(arguments), size):
            yield arguments[start : start + size]

    def _feed(self, kind: str, waiting: deque[Any], running: dict[Any, Any]) -> None:
        most = AHEAD * max(len(workers_of(self._client)), 1)
        while waiting and len(running) < most:
            tasks = waiting.popleft()
            running[self._client.submit(_there, self._job, kind, tasks, pure=False, retries=DEATHS)] = tasks

    def _take(self, kind: str, answer: Answer, worker: str) -> None:
        self.trace.append(Traced(kind, self._group, answer.seconds, answer.cpu_seconds, worker))
        self.peak_bytes = max(self.peak_bytes, answer.peak_bytes)
        for name, data in answer.made.items():
            if not (place := self._layers / name).exists():
                write_whole(place, data)

    @property
    def _layers(self) -> Path:
        return self._folder / "layers"

    def _send(self, lacking: Lacking, worker: str) -> None:
        """The files that a worker lacks, piece by piece, to it alone; of layers those that were compressed already."""
        for sha256 in lacking.sha256:
            file = next(f for f in self._job.files if f.sha256 == sha256)
            self._send_file(Path(file.path), sha256, worker)
        known = [self._layers / name for name in lacking.layers if (self._layers / name).is_file()]
        digests = {layer.name: file_sha256(layer) for layer in known}
        for layer in known:
            self._send_file(layer, digests[layer.name], worker)
        if lacking.layers:
            self._client.submit(adopt, self._job, digests, lacking.layers, workers=[worker], pure=False).result()

    def _send_file(self, path: Path, sha256: str, worker: str) -> None:
        size = path.stat().st_size
        with path.open("rb") as source:
            for offset in range(0, max(size, 1), PIECE_BYTES):
                data = source.read(PIECE_BYTES)
                self._client.submit(receive, sha256, offset, data, workers=[worker], pure=False).result()
                self.sent_bytes += len(data)
                self._progress(f"sending {path.name}", min(offset + PIECE_BYTES, size), size)


def _there(job: WorkerJob, kind: str, tasks: Sequence[Any]) -> tuple[Answer | Lacking, str]:
    """On a worker: the answer, and who gave it."""
    from distributed import get_worker

    return carry_out(job, kind, tasks), get_worker().address


def _ended(running: list[Any]) -> list[Any]:
    """Futures that have ended, one at least."""
    distributed: Any = importlib.import_module("distributed")
    return list(distributed.wait(running, return_when="FIRST_COMPLETED").done)


@contextlib.contextmanager
def workers_for(job: Job, folder: Path, notifier: Notifier) -> Iterator[DaskWorkers | None]:
    """The workers that a job's options ask for; None where they ask for none.

    Raises:
        NotAvailable: Dask is not installed, no scheduler answers, or it has no workers.
    """
    spec = job.spec
    if spec.workers == 1 and spec.cluster is None:
        yield None
        return
    bound = memory_bound(spec.worker_memory, spec.workers)
    with connected_client(spec.workers, spec.cluster, bound, notifier.say) as client:
        workers = DaskWorkers(client, job, folder, notifier.progress)
        yield workers
        if workers.trace:
            sent = f", {bytes_text(workers.sent_bytes)} sent" if workers.sent_bytes else ""
            notifier.say(
                f"workers: {len(workers.trace)} tasks, {sum(t.seconds for t in workers.trace):.0f} s of work; the "
                f"largest of {len({t.worker for t in workers.trace})} held {bytes_text(workers.peak_bytes)}{sent}"
            )
