"""How far more workers carry a search: task sizes of a real run, and a simulation of 1 to 256 workers from them.

python benchmarks/scale_out.py record MODEL trace.json --effort quick --workers 2 --cores 2
python benchmarks/scale_out.py simulate trace.json --cores 2

Workers that outnumber the cores share them: each goes on at cores / workers of its speed. Without --cores every worker
has a core of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from toolchain.files.workspace import workspace
from toolchain.pipeline import build
from toolchain.pipeline.calibrate import Notifier, evaluator_of
from toolchain.pipeline.cluster import Traced, workers_for
from toolchain.pipeline.job import prepare
from toolchain.pipeline.spec import resolve

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TASK_S = 0.005
"""What giving a task out and taking its answer costs the main process; `record` measures it on empty tasks."""


@dataclass(frozen=True)
class Trace:
    """One search. alone_s: CPU seconds of the main process; opening_s: of a worker until its first task; dispatch_s: of
    the main process for a task; groups: CPU seconds of tasks that were given out together, in order of time.
    wall_s: of the whole; stretch: wall over CPU time of the tasks, 1 where every process has a core of its own."""

    model: str
    effort: str
    workers: int
    alone_s: float
    opening_s: float
    dispatch_s: float
    wall_s: float
    stretch: float
    groups: tuple[tuple[float, ...], ...]
    kinds: tuple[str, ...]


def group_s(tasks: Sequence[float], workers: int, dispatch_s: float, cores: float = math.inf) -> float:
    """How long so many workers take for tasks that are given out one after the other to whoever is free.

    tasks: CPU seconds of each. cores: those that run share them evenly.
    """
    now, given, left = 0.0, 0, list[float]()
    while given < len(tasks) or left:
        ready = (given + 1) * dispatch_s if given < len(tasks) and len(left) < workers else math.inf
        if ready <= now:
            left.append(tasks[given])
            given += 1
            continue
        rate = min(1.0, cores / len(left)) if left else 1.0
        ends = now + min(left) / rate if left else math.inf
        step = min(ready, ends)
        left = [seconds - (step - now) * rate for seconds in left]
        left = [seconds for seconds in left if seconds > 1e-12]
        now = step
    return now


def search_s(trace: Trace, workers: int, cores: float = math.inf) -> float:
    """Seconds of a search with so many workers on so many cores; one is the main process by itself."""
    if workers == 1:
        return trace.alone_s + sum(map(sum, trace.groups))
    opening = trace.opening_s * max(1.0, workers / cores)
    return trace.alone_s + opening + sum(group_s(g, workers, trace.dispatch_s, cores) for g in trace.groups)


def critical_s(trace: Trace) -> float:
    """The least that any number of workers can reach: the largest task of every group, one after the other."""
    return trace.alone_s + trace.opening_s + sum(max(group, default=0.0) for group in trace.groups)


def record(model: Path, effort: str, workers: int) -> Trace:
    """Search once with workers, and keep what every task took."""
    silent = Notifier(progress=lambda stage, done, total: None, say=print)
    with tempfile.TemporaryDirectory() as place:
        given = {"model": model, "output": Path(place) / "out", "effort": effort, "workers": workers, "max_drop": "5%"}
        job = prepare(resolve(given, None, ()))
        began, cpu = time.monotonic(), time.process_time()
        with (
            workspace(job.spec.output, job.inputs(), resume=False) as folder,
            workers_for(job, folder, silent) as team,
        ):
            assert team is not None, "give --workers 2 or more"
            calibrated = build.calibrate_with(job, folder, silent, team)
            evaluator = evaluator_of(calibrated, folder, workers=team)
            build.plan_for(calibrated, calibrated.job.problem, evaluator, folder, silent)
            found = list(team.trace)
        alone, wall = time.process_time() - cpu, time.monotonic() - began
    opening, groups = _groups(found)
    stretch = sum(t.seconds for t in found) / sum(t.cpu_seconds for t in found)
    return Trace(
        model=model.name, effort=effort, workers=workers, alone_s=alone, opening_s=opening, dispatch_s=TASK_S,
        wall_s=wall, stretch=stretch, groups=groups, kinds=tuple({t.group: t.kind for t in found}.values()),
    )  # fmt: skip


def _groups(trace: Sequence[Traced]) -> tuple[float, tuple[tuple[float, ...], ...]]:
    """The opening of a worker, by what its first task took longer than the others of its kind; and tasks by group."""
    first = {t.worker: t for t in reversed(trace)}
    usual = {kind: sorted(t.cpu_seconds for t in trace if t.kind == kind) for kind in {t.kind for t in trace}}
    middle = {kind: times[len(times) // 2] for kind, times in usual.items()}
    opening = max(t.cpu_seconds - middle[t.kind] for t in first.values())
    opened = {id(t) for t in first.values()}
    groups: dict[int, list[float]] = {}
    for t in trace:
        groups.setdefault(t.group, []).append(middle[t.kind] if id(t) in opened else t.cpu_seconds)
    return max(opening, 0.0), tuple(map(tuple, groups.values()))


def table(trace: Trace, cores: float = math.inf) -> str:
    """The simulation as Markdown."""
    one, least = search_s(trace, 1), critical_s(trace)
    tasks = [seconds for group in trace.groups for seconds in group]
    lines = [
        f"{trace.model}, {trace.effort}: {len(tasks)} tasks in {len(trace.groups)} groups, {sum(tasks):.0f} s of work, "
        f"median {sorted(tasks)[len(tasks) // 2]:.3f} s, largest {max(tasks):.2f} s; main process "
        f"{trace.alone_s:.1f} s, opening {trace.opening_s:.1f} s; critical path {least:.1f} s",
        "", "| workers | seconds | times as fast | of its workers used |", "|---|---|---|---|",
    ]  # fmt: skip
    for workers in WORKERS:
        seconds = search_s(trace, workers, cores)
        lines.append(f"| {workers} | {seconds:.1f} | {one / seconds:.2f} | {sum(tasks) / workers / seconds:.0%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("model", type=Path)
    recording.add_argument("trace", type=Path)
    recording.add_argument("--effort", default="quick")
    recording.add_argument("--workers", type=int, default=2)
    simulating = commands.add_parser("simulate")
    simulating.add_argument("trace", type=Path)
    for command in (recording, simulating):
        command.add_argument("--cores", type=float, default=math.inf)
    given = parser.parse_args()
    if given.command == "record":
        trace = record(given.model, given.effort, given.workers)
        given.trace.write_text(json.dumps(asdict(trace)))
        expected = search_s(trace, trace.workers, given.cores)
        print(
            f"measured: {trace.wall_s:.1f} s with {trace.workers} workers; simulated {expected:.1f} s "
            f"({expected / trace.wall_s - 1:+.0%}); a CPU second of a task took {trace.stretch:.2f} s"
        )
    else:
        raw = json.loads(given.trace.read_text())
        trace = Trace(**raw | {"groups": tuple(map(tuple, raw["groups"])), "kinds": tuple(raw["kinds"])})
    print(table(trace, given.cores))


if __name__ == "__main__":
    main()
