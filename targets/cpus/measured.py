"""From what a probe found to a target: rows of costs and bandwidths, and where each figure is from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from exporters.microbenchmark_files import Microbenchmark
from targets.cpus.cost import SESSION
from targets.cpus.items import PAUSES, REFERENCES, Item
from targets.cpus.plan import STATE_WIDTH, ProbePlan
from targets.cpus.spec import Bandwidth, CostRow, Cpu
from targets.device.clock import median
from targets.device.conditions import HELD_UP
from targets.device.probing import ProbeFacts, Sampled


class Kept(Protocol):
    """Results by key that outlive this process."""

    def get(self, key: str) -> Sampled | None: ...

    def add(self, key: str, value: Sampled) -> Sampled: ...


class Results:
    """What all turns found of an item."""

    def __init__(self, kept: Kept, turns: int) -> None:
        self._kept, self._turns = kept, turns

    def all(self, key: str) -> list[Sampled]:
        found = (self._kept.get(f"{turn} {key}") for turn in range(self._turns))
        return [sampled for sampled in found if sampled is not None]

    def least(self, key: str) -> float:
        """The turn that was disturbed least; where a process is held up all the time, the one in the middle: there the
        disturbance is what the machine is like."""
        found = self.all(key)
        values = [sampled.value for sampled in found]
        return median(values) if min(sampled.wait for sampled in found) > HELD_UP else min(values)

    def spread(self, key: str) -> float:
        """How much the slowest turn took longer than the fastest, as a share."""
        values = [sampled.value for sampled in self.all(key)]
        return round(max(values) / min(values) - 1, 4)


def measured_bandwidths(items: Sequence[Item], results: Results) -> tuple[Bandwidth, ...]:
    rows = []
    for item in items:
        if item.task.kind == "bandwidth":
            level = item.key.split()[1]
            gbs = round(results.least(item.key), 2)
            rows.append(Bandwidth(level, item.task.threads, item.task.working_set_bytes, gbs))
    return tuple(rows)


def measured_costs(
    items: Sequence[Item], benchmarks: Mapping[str, Microbenchmark], results: Results, plan: ProbePlan
) -> tuple[CostRow, ...]:  # fmt: skip
    rows = [
        row
        for item in items
        if item.task.graph in benchmarks
        for row in _priced(item, benchmarks[item.task.graph], results)
    ]
    for threads in plan.threads:
        relu = next(row.us for row in rows if (row.operator, row.rows, row.threads) == ("Relu", STATE_WIDTH, threads))
        rows += _session_rows([item for item in items if item.task.kind == "calls" and item.task.threads == threads],
                              relu, results)  # fmt: skip
    return tuple(rows)


def _priced(item: Item, benchmark: Microbenchmark, results: Results) -> Iterator[CostRow]:
    us = results.least(item.key) / (benchmark.count * len(benchmark.priced))
    for operator, rows, cols in benchmark.priced:
        yield CostRow(
            operator=operator, format=benchmark.format, rows=rows, cols=cols, threads=item.task.threads,
            activation_bits=benchmark.activation_bits, working_set_bytes=benchmark.working_set_bytes, us=round(us, 4),
            spread=results.spread(item.key),
        )  # fmt: skip


def _session_rows(items: Sequence[Item], relu_us: float, results: Results) -> Iterator[CostRow]:
    """What a call costs besides its nodes, for few and many states; relu_us is taken off for each state's node."""
    least = 0.1
    for item in items:
        # Many small nodes side by side cost less than in a benchmark, so that the rest may seem to shrink: it does not.
        least = max(results.least(item.key) - item.task.states * relu_us, least)
        yield CostRow(SESSION, "", item.task.states, 1, item.task.threads, 0, 0, round(least, 4),
                      results.spread(item.key))  # fmt: skip


def described(cpu: Cpu, before: ProbeFacts, after: ProbeFacts, results: Results, source: str) -> Cpu:
    """The target with what the machine was like meanwhile, and where each figure is from."""
    memory = next((row.gbs for row in cpu.bandwidths if row.level == "memory" and row.threads == 1), None)
    waits = [sampled.wait for key in REFERENCES for sampled in results.all(key) if sampled.wait > 0]
    wait = max(1.0, min(waits, default=1.0))
    pauses = [sampled.value / 1e3 for sampled in results.all(PAUSES) if sampled.value]
    found = {
        "bandwidth_gbs": memory,
        "reference_us": round(results.least("reference"), 2),
        "governor": before.conditions.governor,
        "temperature_c": after.conditions.temperature_c,
        "wait": wait,
        "pause_ms": round(median(pauses), 3) if pauses and wait > HELD_UP else None,
        "kernels": before.kernels or "stock",
        "runtime": before.runtime,
    }
    known: dict[str, Any] = {key: value for key, value in found.items() if value is not None}
    sources = dict.fromkeys((*known, "bandwidths", "empty_runtime_bytes"), source)
    sources["costs"] = f"{source}, {before.runtime}, kernels {before.isa if before.kernels else 'stock'}"
    return dataclasses.replace(cpu, **known, sources=sources)
