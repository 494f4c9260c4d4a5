"""The child process that is probed: tasks as JSON on stdin, what each of them took on stdout.

The graphs are made where the toolchain is; here they are run on the real runtime. Nothing but numpy and onnxruntime is
imported, so that a board can be probed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from exporters.artifact.blocks import BlockTensor, expand
from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import Io, State
from exporters.artifact.native_library import build_id
from exporters.artifact.parsing import parse
from targets.device.clock import SystemClock, Timed, low_decile, median, timed
from targets.device.conditions import HELD_UP, Conditions, conditions
from targets.device.host import HostCpu, host_cpu
from targets.device.memory import available_bytes
from targets.device.native import installed_library, isa_name
from targets.device.reference import reference_work
from targets.device.session import open_session, session_options
from targets.device.worker import weigh_empty_runtime

_BANDWIDTH_TURNS: Final = 5
_MOST_SAMPLES: Final = 1000
_LEAST_SAMPLES: Final = 5
_DTYPES: Final = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8}
_REFERENCE_PIECES: Final = 50
_REFERENCE_S: Final = 0.3
_PAUSES_NS: Final = 500_000_000
_LEAST_STOP_NS: Final = 500_000
"""Shorter ones are interrupts."""
_LEAST_STOPS: Final = 3


@dataclass(frozen=True)
class Task:
    """One thing to measure, of a kind in `MEASURED`.

    graph, block: names of files in the job's folder. tensors, repeats: of the data file that is made of the block, and
    that the graph expects under the name `data`. width: of the graph's input. states: of a graph that only passes them
    on. working_set_bytes: what a bandwidth is read from. seconds: how long to go on.
    """

    kind: str
    graph: str = ""
    block: str = ""
    data: str = ""
    tensors: tuple[BlockTensor, ...] = ()
    repeats: int = 1
    width: int = 0
    states: int = 0
    threads: int = 1
    working_set_bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class ProbeJob:
    """Tasks, and the folder with their files."""

    folder: str
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Sampled:
    """What one task gave: microseconds, GB/s of a bandwidth, bytes of the empty runtime.

    wait: wall over CPU time meanwhile; 1 on a machine of one's own, 4 with a quarter of a core; 0 where not measured.
    """

    value: float
    wait: float = 0.0


@dataclass(frozen=True)
class ProbeFacts:
    """What the machine says of itself. runtime: what runs the graphs, with its version; kernels: the id of the sources
    of its operators, None with stock ones alone."""

    cpu: HostCpu
    isa: str
    runtime: str
    kernels: str | None
    free_bytes: int | None
    conditions: Conditions


@dataclass(frozen=True)
class Probed:
    """A job's answer: what every task gave, and the machine afterwards."""

    facts: ProbeFacts
    results: tuple[Sampled, ...]


def probe_facts() -> ProbeFacts:
    """This machine as it is now."""
    library = installed_library()
    return ProbeFacts(
        cpu=host_cpu(),
        isa=isa_name(library),
        runtime=f"ONNX Runtime {ort.__version__}",
        kernels=build_id(library) if library else None,
        free_bytes=available_bytes(),
        conditions=conditions(),
    )


def measure_empty(task: Task, folder: Path) -> Sampled:
    """Bytes that the runtime holds with no model in it; it comes first in a process."""
    return Sampled(float(weigh_empty_runtime().rss_bytes))


def measure_reference(task: Task, folder: Path) -> Sampled:
    """CPU time of the reference work on the machine as it is when nothing disturbs it, in microseconds."""
    pieces, begin = list[Timed](), time.perf_counter()
    while len(pieces) < _REFERENCE_PIECES or time.perf_counter() - begin < _REFERENCE_S:
        pieces.append(timed(SystemClock(), reference_work))
    wait = sum(p.wall_ms for p in pieces) / max(sum(p.cpu_ms for p in pieces), 1e-9)
    return Sampled(1e3 * low_decile([p.cpu_ms for p in pieces]), round(wait, 3))


def measure_pauses(task: Task, folder: Path) -> Sampled:
    """How long a process that goes on computing is stopped at a time, in microseconds, the middle one of all stops; 0
    where it is stopped too seldom to tell."""
    stops, now, clock = list[float](), time.perf_counter_ns, SystemClock()
    wall, cpu = clock.wall_ns(), clock.cpu_ns()
    last = now()
    end = last + _PAUSES_NS
    while last < end:
        this = now()
        if this - last > _LEAST_STOP_NS:
            stops.append((this - last) / 1e3)
        last = this
    cpu, wall = clock.cpu_ns() - cpu, clock.wall_ns() - wall
    return Sampled(median(stops) if len(stops) >= _LEAST_STOPS else 0.0, round(wall / max(cpu, 1), 3))


def measure_bandwidth(task: Task, folder: Path) -> Sampled:
    """GB/s of so many threads, each reading a buffer of its own; numpy reads without the GIL.

    Wall time, because cores that wait for each other's memory is what is asked; the best of several turns.
    """
    buffers = [np.ones(max(task.working_set_bytes // 4, 1024), np.int32) for _ in range(task.threads)]
    passes = max(1, (1 << 24) // buffers[0].nbytes)
    best = 0.0
    for _ in range(_BANDWIDTH_TURNS):
        rates = [0.0] * task.threads
        gate = threading.Barrier(task.threads)

        def read(i: int, rates: list[float] = rates, gate: threading.Barrier = gate) -> None:
            buffers[i].max()
            gate.wait()
            start = time.perf_counter_ns()
            for _ in range(passes):
                buffers[i].max()
            rates[i] = passes * buffers[i].nbytes / max(time.perf_counter_ns() - start, 1)

        workers = [threading.Thread(target=read, args=(i,)) for i in range(task.threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, sum(rates))
    return Sampled(best)


def measure_benchmark(task: Task, folder: Path) -> Sampled:
    """One run of a benchmark: CPU time on one thread; wall time on several, because they wait for each other."""
    data = folder / task.data
    expand(folder / task.block, task.tensors, task.repeats, data)
    try:
        return _sampled(opened_benchmark(folder / task.graph, task.width, task.threads), task.threads, task.seconds)
    finally:
        with contextlib.suppress(OSError):
            data.unlink()


def measure_calls(task: Task, folder: Path) -> Sampled:
    """One call of a graph that passes its states on."""
    width = task.width
    states = tuple(State(f"s{i}", f"t{i}", (1, width), "float32", 0.0) for i in range(task.states))
    session = open_session(
        folder / task.graph, Io("tokens", "logits", states), native=None, threads=task.threads
    )  # fmt: skip
    return _sampled(functools.partial(session.step, 0), 1, task.seconds)


MEASURED: Final[dict[str, Callable[[Task, Path], Sampled]]] = {
    "empty": measure_empty,
    "reference": measure_reference,
    "pauses": measure_pauses,
    "bandwidth": measure_bandwidth,
    "benchmark": measure_benchmark,
    "calls": measure_calls,
}


def opened_benchmark(graph: Path, width: int, threads: int) -> Callable[[], object]:
    """A benchmark, opened and run once; its data file lies beside it. States stay where they are, as an artifact's do.

    Raises:
        SlmcError: its values are no numbers.
    """
    options = session_options(installed_library(), threads)
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((1, 1, width)).astype(np.float32)
    y = ort.OrtValue.ortvalue_from_numpy(np.zeros_like(x))
    binding = session.io_binding()
    binding.bind_ortvalue_input("x0", ort.OrtValue.ortvalue_from_numpy(x))
    binding.bind_ortvalue_output(session.get_outputs()[0].name, y)
    for state, after in zip(session.get_inputs()[1:], session.get_outputs()[1:], strict=True):
        held = ort.OrtValue.ortvalue_from_numpy(np.zeros(state.shape, _DTYPES[state.type]))
        binding.bind_ortvalue_input(state.name, held)
        binding.bind_ortvalue_output(after.name, held)
    session.run_with_iobinding(binding)
    if not np.isfinite(y.numpy()).all():
        raise SlmcError(f"{graph.name}: the chain's values run away; this is a fault of slmc: please report it")
    return lambda: session.run_with_iobinding(binding)


def _sampled(run: Callable[[], object], threads: int, seconds: float) -> Sampled:
    """The low decile of many calls, in microseconds; their mean where the process is held up all the time: some calls
    find their caches and others do not, and a token, which is longer than the pauses are apart, is a sum of both."""
    clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns
    run()
    run()
    samples: list[float] = []
    begin = time.perf_counter_ns()
    while len(samples) < _LEAST_SAMPLES or (
        time.perf_counter_ns() - begin < seconds * 1e9 and len(samples) < _MOST_SAMPLES
    ):
        start = clock()
        run()
        samples.append((clock() - start) / 1e3)
    wall = (time.perf_counter_ns() - begin) / 1e3
    wait = round(wall / max(sum(samples), 1e-3), 3) if threads == 1 else 0.0
    return Sampled(sum(samples) / len(samples) if wait > HELD_UP else low_decile(samples), wait)


def answer(job_json: str) -> dict[str, Any]:
    """The document for stdout: {'probed': ...} or {'error': {kind, text}}."""
    try:
        job: ProbeJob = parse(ProbeJob, json.loads(job_json), "job")
        results = tuple(MEASURED[task.kind](task, Path(job.folder)) for task in job.tasks)
        return {"probed": dataclasses.asdict(Probed(probe_facts(), results))}
    except SlmcError as error:
        return {"error": {"kind": type(error).__name__, "text": str(error)}}
    except OSError as error:
        return {"error": {"kind": "NotAvailable", "text": f"{error.filename}: {error.strerror}"}}


def main() -> None:
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stdout:
        os.dup2(2, 1)
        json.dump(answer(sys.stdin.read()), stdout)


if __name__ == "__main__":
    main()
