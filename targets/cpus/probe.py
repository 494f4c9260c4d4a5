"""Measures a machine: read bandwidth by working set, and what every operator costs, on the runtime there.

Graphs are made here; what runs there is `targets.device.probing`. Results are kept one by one, so that a probe that is
interrupted goes on where it was.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from exporters.microbenchmark_files import Microbenchmark, states_model
from targets.cpus.items import Item, probe_items
from targets.cpus.measured import Kept, Results, described, measured_bandwidths, measured_costs
from targets.cpus.plan import plan_for, working_sets
from targets.cpus.spec import Cpu
from targets.device.probing import Probed, ProbeFacts, Task

ROUNDS: Final = 3
"""Turns over all benchmarks, so that one bad moment spoils no row."""

BATCH_S, BATCH_TASKS = 6.0, 32
"""How much is asked for at once: so much is lost at most when the connection breaks."""

QUICK_S: Final = 140.0
"""A quick probe begins no further turn after this time."""

Progress = Callable[[str, int, int], None]


class ProbedMachine(Protocol):
    """A machine that is being probed."""

    def put(self, files: Sequence[Path]) -> None:
        """Send those files of whose name there is none."""

    def run(self, tasks: Sequence[Task]) -> Probed:
        """Carry tasks out, in a process of their own."""


def machine_facts(machine: ProbedMachine) -> tuple[ProbeFacts, int]:
    """What a machine says of itself, and the bytes of its empty runtime.

    Raises:
        SlmcError: as the machine's `run`.
    """
    found = machine.run([Task("empty")])
    return found.facts, int(found.results[0].value)


def probe(
    machine: ProbedMachine, facts: ProbeFacts, kept: Kept, *, name: str, empty_runtime_bytes: int, quick: bool,
    most_bytes: int | None = None, progress: Progress = lambda stage, done, total: None,
) -> Cpu:  # fmt: skip
    """A machine's facts with measured bandwidths and costs; minutes of one core there, or all of them.

    Args:
        facts, empty_runtime_bytes: of `machine_facts`.
        kept: what an earlier, interrupted probe of this machine has found.
        most_bytes: a limit on memory there.

    Raises:
        SlmcError: a runtime that cannot run the benchmarks, or the connection has ended.
    """
    cpu = Cpu(name=name, **dataclasses.asdict(facts.cpu))
    free = min((size for size in (facts.free_bytes, most_bytes) if size is not None), default=None)
    plan, sets = plan_for(cpu.cores or 1, quick=quick), working_sets(cpu, free, quick=quick)
    items = list(probe_items(plan, sets, cpu.cores or 1))
    begin, benchmarks, latest = time.monotonic(), dict[str, Microbenchmark](), facts
    with tempfile.TemporaryDirectory(prefix="slmc-probe-") as folder:
        writer = _Writer(machine, Path(folder), benchmarks)
        turns = 0
        while turns < ROUNDS and not (quick and turns and time.monotonic() - begin > QUICK_S):
            latest = _turn(writer, items, turns, kept, progress) or latest
            turns += 1
    results = Results(kept, turns)
    source = f"measured by slmc targets probe{' --quick' if quick else ''}, {datetime.date.today().isoformat()}"
    cpu = dataclasses.replace(
        cpu, bandwidths=measured_bandwidths(items, results), costs=measured_costs(items, benchmarks, results, plan),
        empty_runtime_bytes=empty_runtime_bytes,
    )  # fmt: skip
    return described(cpu, facts, latest, results, source)


class _Writer:
    """Graphs, made when they are needed and sent once; a block that several of them share is sent once, too.

    benchmarks: by the key of the graph, filled as they are made.
    """

    def __init__(self, machine: ProbedMachine, folder: Path, benchmarks: dict[str, Microbenchmark]) -> None:
        self.machine, self._folder, self._benchmarks = machine, folder, benchmarks
        self._blocks: dict[str, str] = {}

    def prepare(self, item: Item) -> None:
        """Write an item's graph, if it is a benchmark, and know what it is priced as."""
        graph = item.task.graph
        if item.write is not None and graph not in self._benchmarks:
            benchmark = item.write(self._folder / f"{hashlib.sha256(graph.encode()).hexdigest()[:12]}.onnx")
            self._blocks[graph] = f"{hashlib.sha256(benchmark.block.read_bytes()).hexdigest()[:16]}.block"
            benchmark.block.rename(self._folder / self._blocks[graph])
            self._benchmarks[graph] = benchmark

    def ready(self, items: Sequence[Item]) -> list[Task]:
        """The tasks, with all their files on the machine."""
        tasks = [self._task(item) for item in items]
        names = dict.fromkeys(name for task in tasks for name in (task.graph, task.block) if name)
        self.machine.put([self._folder / name for name in names])
        return tasks

    def _task(self, item: Item) -> Task:
        task = item.task
        if item.write is not None:
            benchmark = self._benchmarks[task.graph]
            return dataclasses.replace(
                task, graph=benchmark.path.name, block=self._blocks[task.graph], data=benchmark.data.name,
                tensors=benchmark.tensors, repeats=benchmark.repeats, width=benchmark.width,
            )  # fmt: skip
        if task.kind == "calls":
            (self._folder / task.graph).write_bytes(states_model(task.states, task.width))
        return task


def _turn(writer: _Writer, items: Sequence[Item], turn: int, kept: Kept, progress: Progress) -> ProbeFacts | None:
    """Everything once more; returns what the machine source at last."""
    latest, batch, seconds = None, list[Item](), 0.0

    def flush() -> None:
        nonlocal latest, seconds
        found = writer.machine.run(writer.ready(batch))
        for item, result in zip(batch, found.results, strict=True):
            kept.add(f"{turn} {item.key}", result)
        latest, seconds = found.facts, 0.0
        batch.clear()

    for done, item in enumerate(items):
        progress("costs", turn * len(items) + done + 1, ROUNDS * len(items))
        writer.prepare(item)
        once = item.task.kind == "bandwidth" and turn > 0
        if once or kept.get(f"{turn} {item.key}") is not None:
            continue
        batch.append(item)
        seconds += max(item.task.seconds, 0.1)
        if seconds >= BATCH_S or len(batch) >= BATCH_TASKS:
            flush()
    if batch:
        flush()
    return latest
