"""Everything that a probe asks for, one by one: tasks of `targets.device.probing`, and how their graphs are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from exporters.formats.catalog import formats_matching
from exporters.microbenchmark_files import Microbenchmark
from exporters.microbenchmark_nodes import PLAIN_NODES, write_plain_benchmark
from exporters.microbenchmarks import activation_widths, write_matrix_benchmark
from targets.cpus.plan import STATE_WIDTH, STATES, ProbePlan
from targets.device.probing import Task


@dataclass(frozen=True)
class Item:
    """A task and the name of its result. write: makes its graph, of a benchmark, whose name in the task is a key."""

    key: str
    task: Task
    write: Callable[[Path], Microbenchmark] | None = None


REFERENCES: Final = ("reference", "reference again")
"""How fast the machine is, and how much of a core it gives, at the beginning and at the end of a turn."""

PAUSES: Final = "pauses"
"""How long a process that has used up its share of a core is stopped."""


def probe_items(plan: ProbePlan, sets: Sequence[tuple[str, int]], cores: int) -> Iterator[Item]:
    yield Item(REFERENCES[0], Task("reference"))
    yield Item(PAUSES, Task(PAUSES))
    for threads in sorted({1, cores}):
        for level, size in sets:
            yield Item(
                f"bandwidth {level} {size} t{threads}", Task("bandwidth", threads=threads, working_set_bytes=size)
            )
    for key, write in _graphs(plan, sets):
        for threads in plan.threads:
            yield Item(f"{key} t{threads}", Task("benchmark", graph=key, threads=threads, seconds=plan.seconds), write)
    for threads in plan.threads:
        for states in STATES:
            task = Task("calls", graph=f"states{states}.onnx", width=STATE_WIDTH, states=states, threads=threads,
                        seconds=0.2)  # fmt: skip
            yield Item(f"calls {states} t{threads}", task)
    yield Item(REFERENCES[1], Task("reference"))


def _graphs(plan: ProbePlan, sets: Sequence[tuple[str, int]]) -> Iterator[tuple[str, Callable[[Path], Microbenchmark]]]:
    """Every shape from the second cache, and one shape from farther away."""
    near = next(size for level, size in sets if level == "L2")
    for fmt in formats_matching(plan.formats):
        largest = max((shape for shape in plan.shapes if max(shape) <= 1024), key=lambda s: s[0] * s[1])
        far = dict.fromkeys((*largest, size) for level, size in sets if level in ("L3", "memory"))
        for bits in activation_widths(fmt.name):
            for r, c, size in [*((r, c, near) for r, c in plan.shapes), *far]:

                def matrix(
                    path: Path, f: str = fmt.name, r: int = r, c: int = c, s: int = size, b: int = bits
                ) -> Microbenchmark:
                    return write_matrix_benchmark(path, f, r, c, s, b)

                yield f"{fmt.name} {r}x{c} W{size} b{bits}", matrix
    for name in PLAIN_NODES:
        for width in plan.widths:

            def plain(path: Path, n: str = name, w: int = width) -> Microbenchmark:
                return write_plain_benchmark(path, n, w)

            yield f"{name} {width}", plain
