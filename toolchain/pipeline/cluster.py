"""Workers of a search on Dask, imported only where they are asked for: processes here, or those of a scheduler."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import importlib.util
import logging
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exporters.artifact.errors import NotAvailable, SlmcError
from targets.device.memory import available_bytes
from targets.device.quantities import bytes_text, parse_bytes
from toolchain.compress.recipe import Recipe
from toolchain.files.progress import Progress
from toolchain.files.workspace import write_whole
from toolchain.pipeline.calibrate import Calibrated, Notifier
from toolchain.pipeline.worker import Answer, Lacking, WorkerJob, carry_out, receive
from toolchain.pipeline.worker_job import worker_job
from toolchain.quality.reference import Score
from toolchain.search.problem import LayerChoice
from toolchain.search.store import LayerStore

EXTRA: Final = "pip install 'slmc[cluster]'"
CONNECT_S: Final = 10
JOIN_S: Final = 60
PIECE_BYTES: Final = 1 << 23
DEATHS: Final = 8
"""How often the workers that a task ran on may die before it is called the task's fault."""

BATCH, BATCHES = 16, 8
"""The most small tasks that are given out as one; so many for each worker at least."""

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

    trace: every task so far. peak_bytes: the most that any worker held.
    """

    def __init__(self, client: Any, job: WorkerJob, layers: LayerStore, progress: Progress) -> None:
        self._client, self._job, self._layers, self._progress = client, job, layers, progress
        self.trace: list[Traced] = []
        self._group = 0
        self.peak_bytes = 0

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
        with _explained():
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
        size = 1 if kind == "score" else min(BATCH, len(arguments) // (BATCHES * len(_workers(self._client)) or 1) or 1)
        for start in range(0, len(arguments), size):
            yield arguments[start : start + size]

    def _feed(self, kind: str, waiting: deque[Any], running: dict[Any, Any]) -> None:
        most = AHEAD * max(len(_workers(self._client)), 1)
        while waiting and len(running) < most:
            tasks = waiting.popleft()
            running[self._client.submit(_there, self._job, kind, tasks, pure=False, retries=DEATHS)] = tasks

    def _take(self, kind: str, answer: Answer, worker: str) -> None:
        self.trace.append(Traced(kind, self._group, answer.seconds, answer.cpu_seconds, worker))
        self.peak_bytes = max(self.peak_bytes, answer.peak_bytes)
        for name, data in answer.made.items():
            if not (place := self._layers.folder / name).exists():
                write_whole(place, data)

    def _send(self, lacking: Lacking, worker: str) -> None:
        """The files that a worker lacks, piece by piece, to it alone."""
        for sha256 in lacking.sha256:
            file = next(f for f in self._job.files if f.sha256 == sha256)
            with Path(file.path).open("rb") as source:
                for offset in range(0, max(file.bytes, 1), PIECE_BYTES):
                    data = source.read(PIECE_BYTES)
                    there = self._client.submit(receive, sha256, offset, data, workers=[worker], pure=False)
                    there.result()
                    self._progress(f"sending {Path(file.path).name}", min(offset + PIECE_BYTES, file.bytes), file.bytes)


def _there(job: WorkerJob, kind: str, tasks: Sequence[Any]) -> tuple[Answer | Lacking, str]:
    """On a worker: the answer, and who gave it."""
    from distributed import get_worker

    return carry_out(job, kind, tasks), get_worker().address


def _ended(running: list[Any]) -> list[Any]:
    """Futures that have ended, one at least."""
    return list(_dask("distributed").wait(running, return_when="FIRST_COMPLETED").done)


def _dask(module: str) -> Any:
    """A module of Dask, whose own types are incomplete."""
    return importlib.import_module(module)


def _workers(client: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return found


@contextlib.contextmanager
def workers_for(calibrated: Calibrated, folder: Path, notifier: Notifier) -> Iterator[DaskWorkers | None]:
    """The workers that a job's options ask for; None where they ask for none.

    Raises:
        NotAvailable: Dask is not installed, no scheduler answers, or it has no workers.
    """
    spec = calibrated.job.spec
    if spec.workers == 1 and spec.cluster is None:
        yield None
        return
    with _client(spec.workers, spec.cluster, _bound(spec.worker_memory, spec.workers), notifier) as client:
        workers = DaskWorkers(client, worker_job(calibrated, folder), calibrated.layers, notifier.progress)
        yield workers
        if workers.trace:
            notifier.say(
                f"workers: {len(workers.trace)} tasks, {sum(t.seconds for t in workers.trace):.0f} s of work; the "
                f"largest of {len({t.worker for t in workers.trace})} held {bytes_text(workers.peak_bytes)}"
            )


def _bound(asked: str | None, workers: int) -> int:
    """Bytes of one worker: what was asked for, or an equal share of what is free."""
    return parse_bytes(asked, "--worker-memory") if asked else (available_bytes() or 1 << 32) // workers


@contextlib.contextmanager
def _client(workers: int, address: str | None, memory_bytes: int, notifier: Notifier) -> Iterator[Any]:
    """A client of a scheduler: the one that is named, or one of our own with its workers."""
    option = f"--cluster {address}" if address else f"--workers {workers}"
    try:
        dask = _dask("dask")
        _dask("distributed")
    except ModuleNotFoundError as error:
        raise NotAvailable(f"{option}: dask.distributed is not installed here; {EXTRA}") from error
    _silence()
    dask.config.set({"distributed.scheduler.allowed-failures": DEATHS, "distributed.comm.timeouts.connect": CONNECT_S})
    with contextlib.ExitStack() as stack:
        if address is None:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="slmc-workers-", ignore_cleanup_errors=True))
            client = stack.enter_context(_local(workers, memory_bytes, place, stack))
        else:
            client = stack.enter_context(_connected(address))
        notifier.say(f"{option}: {len(_workers(client))} at work{_seen_at(client)}")
        yield client


def _silence() -> None:
    """Every logger of Dask, each of which has a level of its own: what matters is raised, too."""
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _local(workers: int, memory_bytes: int, place: str, stack: contextlib.ExitStack) -> Any:
    """A client of so many processes here."""
    try:
        cluster = _dask("distributed").LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, memory_limit=memory_bytes,
            dashboard_address=":0" if _has_dashboard() else None, local_directory=place,
            silence_logs=logging.CRITICAL,
        )  # fmt: skip
    except RuntimeError as error:
        raise NotAvailable(f"--workers {workers}: a process did not start ({error}); give fewer") from error
    return _dask("distributed").Client(stack.enter_context(cluster))


def _connected(address: str) -> Any:
    advice = f"start one with 'dask scheduler' and workers with 'dask worker {address}'"
    try:
        client = _dask("distributed").Client(address, timeout=CONNECT_S)
    except (OSError, TimeoutError) as error:
        raise NotAvailable(f"--cluster {address}: no scheduler answers there; {advice}") from error
    except ValueError as error:
        raise SlmcError(f"--cluster {address}: no address ({error}); give one as tcp://host:8786") from error
    try:
        _wait_for(client, f"--cluster {address}: no workers; start some with 'dask worker {address}'")
    except NotAvailable:
        client.close()
        raise
    return client


def _wait_for(client: Any, message: str) -> None:
    try:
        client.wait_for_workers(1, timeout=JOIN_S)
    except TimeoutError as error:
        raise NotAvailable(message) from error


def _has_dashboard() -> bool:
    """Dask's own page needs a package that it does not bring."""
    return importlib.util.find_spec("bokeh") is not None


def _seen_at(client: Any) -> str:
    return f", seen at {client.dashboard_link}" if _has_dashboard() else ""


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """What Dask raises, in one line with what to do."""
    distributed = _dask("distributed")
    gone = (
        distributed.comm.CommClosedError, distributed.client.FutureCancelledError, concurrent.futures.CancelledError,
        asyncio.CancelledError, OSError,
    )  # fmt: skip
    try:
        yield
    except distributed.KilledWorker as error:
        raise NotAvailable(
            f"a task ended {DEATHS} workers: each may need more memory; give --worker-memory more, or fewer --workers"
        ) from error
    except gone as error:
        raise NotAvailable(
            "the scheduler of the workers has ended; start it again, and repeat the command with --resume"
        ) from error
    except ModuleNotFoundError as error:
        raise NotAvailable(
            f"the workers lack {error.name}; run there: pip install 'slmc[toolchain,cluster]'"
        ) from error
