"""A build for boards: search with their costs, measure there, and where the forecast was wrong, search on with better.

times, memory  =  law fitted to what was probed  x  factors learned from what was measured
repeat at most three times:  search (from the journal)  ->  export  ->  measure on every board
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from exporters.graph_nodes import Workload, read_workload
from targets.cpus.energy import estimate_energy
from targets.cpus.spec import Cpu
from targets.device.measurement import Measurement
from targets.remote.device import MODEL
from toolchain.compress.recipe import Recipe
from toolchain.delivery.boards import Board, MeasuredOnBoards, OnCpu
from toolchain.delivery.deliver import Delivered, Destination, Staged, deliver, measure_staged, stage
from toolchain.delivery.visits import spread
from toolchain.estimate.feedback import TimeSeen, factors, overhead_bytes
from toolchain.estimate.latency import times_on
from toolchain.files.outputs import check_output
from toolchain.files.workspace import digest_of, workspace
from toolchain.pipeline.build import (
    Compressed,
    calibrate_with,
    compressed_by,
    delivered,
    destination_of,
    finished,
    plan_for,
    refines,
    time_left,
)
from toolchain.pipeline.calibrate import Calibrated, Notifier, evaluator_of
from toolchain.pipeline.cluster import DaskWorkers, workers_for
from toolchain.pipeline.job import Job
from toolchain.search.outcome import RoundResult
from toolchain.search.plan import Plan
from toolchain.search.problem import Problem
from toolchain.search.times import Times

MOST_ROUNDS: Final = 3

MOST_MARGIN: Final = 0.1
"""A further round aims at most so far below the limit."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One artifact that was measured: what was expected of it, and how it fared on each board."""

    plan: Plan
    results: tuple[RoundResult, ...]
    expected: bool

    @property
    def met(self) -> bool:
        return all(result.met for result in self.results)

    def excess(self, max_ms: float | None, max_rss: int | None) -> float:
        """By what share the worst board misses its worst limit; 0 where all hold."""
        over = [0.0]
        for result in self.results:
            over += [result.measured_ms / max_ms - 1] if max_ms else []
            over += [result.measured_rss_bytes / max_rss - 1] if max_rss else []
        return max(over)


@dataclass
class _Law:
    """What is known of one board: predicted times of layers, which are means, and what measurements taught.

    cpu: of the board, whose pauses make medians of means; None where several threads run, whose medians are means.
    """

    times: Times | None
    cpu: Cpu | None = None
    seen: list[TimeSeen] = field(default_factory=list)
    memory: list[tuple[int, int]] = field(default_factory=list)

    @property
    def corrected(self) -> Times | None:
        found = factors(self.seen)
        return self.times and self.times.scaled(found.fixed, found.layers)

    def within(self, limit_ms: float | None) -> Times | None:
        """Times so stretched that a mean at the limit is one whose median is at the limit."""
        times = self.corrected
        if times is None or self.cpu is None or limit_ms is None:
            return times
        stretch = limit_ms / self.cpu.mean_ms_within(limit_ms)
        return times.scaled(stretch, stretch)

    def median_ms(self, recipe: Recipe) -> float | None:
        """What the median time of a token is expected to be."""
        times = self.corrected
        if times is None or self.cpu is None:
            return None if times is None else times.of(recipe)
        return self.cpu.median_ms(times.of(recipe))

    @property
    def overhead_bytes(self) -> int:
        return overhead_bytes(self.memory)

    def learn(self, recipe: Recipe, stored_bytes: int, result: RoundResult, found: Measurement) -> None:
        if self.times is not None:
            mean = result.measured_ms
            if self.cpu is not None and self.cpu.pauses is not None:
                mean = self.cpu.pauses.wait * sum(found.decode_cpu_ms) / len(found.decode_cpu_ms)
            self.seen.append(TimeSeen(self.times.fixed_ms, self.times.layers(recipe), mean, result.spread))
        self.memory.append((stored_bytes, result.measured_rss_bytes))


def build_on(
    job: Job, boards: Sequence[Board], *, force: bool, resume: bool, notifier: Notifier
) -> Delivered:  # fmt: skip
    """Search, measure on the boards, and deliver one artifact that holds on all of them, or the closest.

    Stopped anywhere, also by a broken connection, it leaves its work folder, from which `resume` goes on.

    Raises:
        SlmcError: any stage failed; there is nothing at the output then.
    """
    check_output(job.spec.output, force=force)
    costs = {"boards": [digest_of(dataclasses.asdict(board.cpu)) for board in boards]}
    with workspace(job.spec.output, job.inputs() | costs, resume=resume) as folder:
        began = time.monotonic()
        with workers_for(job, folder, notifier) as workers:
            calibrated = calibrate_with(job, folder, notifier, workers)
            loop = _Loop(boards, folder, calibrated, notifier, force=force)
            found = loop.search(began, workers)
        return loop.deliver(*found)


class _Loop:
    """The rounds of one build, and what they taught so far."""

    def __init__(
        self, boards: Sequence[Board], folder: Path, calibrated: Calibrated, notifier: Notifier, *, force: bool
    ) -> None:
        job = calibrated.job
        self._job, self._boards, self._folder = job, boards, folder
        self._calibrated, self._notifier, self._force = calibrated, notifier, force
        self._measurer = MeasuredOnBoards(boards, folder / "measured.jsonl", job.requirements.max_latency_ms)
        threads = job.spec.threads
        self._laws = [
            _Law(times_on(board.cpu, job.problem, calibrated.model, threads), board.cpu if threads == 1 else None)
            for board in boards
        ]
        self._rounds: list[Round] = []

    def search(self, began: float, workers: DaskWorkers | None) -> tuple[Compressed, Staged, Destination]:
        """All rounds; the last one's artifact, as it lies in the staging folder."""
        evaluator = evaluator_of(self._calibrated, self._folder, time_left(self._job, began), workers)
        job, calibrated = self._job, self._calibrated
        latest: tuple[Compressed, Staged, Destination] | None = None
        while len(self._rounds) < MOST_ROUNDS:
            problem = self._problem()
            plan, result = plan_for(calibrated, problem, evaluator, self._folder, self._notifier)
            if any(plan.recipe == before.plan.recipe for before in self._rounds):
                break
            compressed = compressed_by(calibrated, plan, evaluator.reference)
            destination = self._destination()
            staged = stage(calibrated.model, plan, compressed.encoded, destination, self._notifier.progress)
            latest = compressed, staged, destination
            measured = measure_staged(calibrated.model, staged, job.evaluation, destination)
            work = read_workload(destination.staging / MODEL)
            self._record(problem, plan, result.winner.recipe, work, measured)
            if self._rounds[-1].met or not self._rounds[-1].expected:
                break
        assert latest is not None
        return latest

    def _problem(self) -> Problem:
        """The job's with the boards' times as they are known by now, the slowest board first, and their limits."""
        problem, asked = self._job.problem, self._job.requirements
        constraints = problem.constraints
        limit = asked.max_latency_ms and asked.max_latency_ms / (1 + self._margin)
        known = [law.within(limit) for law in self._laws]
        times = [found for found in known if found is not None]
        if times and len(times) == len(self._laws):
            usual = {path: options[len(options) // 2] for path, options in problem.options.items()}
            first, *others = sorted(times, key=lambda found: found.of(usual), reverse=True)
            problem = dataclasses.replace(problem, times=dataclasses.replace(first, others=tuple(others)))
            constraints = dataclasses.replace(constraints, max_ms=limit)
        if asked.max_rss_bytes is not None:
            room = asked.max_rss_bytes - max(law.overhead_bytes for law in self._laws)
            constraints = dataclasses.replace(constraints, max_bytes=min(room, constraints.max_bytes or room))
        return dataclasses.replace(problem, constraints=constraints)

    @property
    def _margin(self) -> float:
        """How far below the limit a further round aims: by what measurements so far were unsure."""
        return min(MOST_MARGIN, max((x.spread for r in self._rounds for x in r.results), default=0.0))

    def _expected(self, problem: Problem, recipe: Recipe) -> bool:
        """Whether the forecast says that a recipe holds the limits of time and memory on every board."""
        limits, predicted = problem.constraints, problem.predicted_ms(recipe)
        in_time = limits.max_ms is None or predicted is None or predicted <= limits.max_ms
        return in_time and (limits.max_bytes is None or problem.bytes(recipe) <= limits.max_bytes)

    def _record(self, problem: Problem, plan: Plan, recipe: Recipe, work: Workload, measured: Sequence[OnCpu]) -> None:
        """recipe: the plan's, without the layouts that were chosen after the search, which nothing prices."""
        number, stored, asked = len(self._rounds) + 1, problem.bytes(recipe), self._job.requirements
        results = []
        for board, law, on in zip(self._boards, self._laws, measured, strict=True):
            found = on.measurement
            rss = found.ended.peak_bytes - found.baseline.rss_bytes
            result = RoundResult(
                round=number, board=board.name, bytes=stored,
                predicted_ms=law.median_ms(recipe), measured_ms=found.decode_ms.p50,
                predicted_rss_bytes=stored + law.overhead_bytes, measured_rss_bytes=rss,
                met=(asked.max_latency_ms is None or found.decode_ms.p50 <= asked.max_latency_ms)
                and (asked.max_rss_bytes is None or rss <= asked.max_rss_bytes),
                energy_uj=found.uj_per_token or estimate_energy(work, on.cpu.last_cache_bytes).total_uj,
                energy="measured" if found.uj_per_token else "estimated",
                visits=on.visits,
                spread=round(spread(found), 4),
            )  # fmt: skip
            results.append(result)
            self._notifier.say(_line(result))
        for law, result, on in zip(self._laws, results, measured, strict=True):
            law.learn(recipe, stored, result, on.measurement)
        self._rounds.append(Round(plan=plan, results=tuple(results), expected=self._expected(problem, recipe)))

    def deliver(self, compressed: Compressed, staged: Staged, destination: Destination) -> Delivered:
        """The round that comes closest to the limits, with what was measured of all of them."""
        asked = self._job.requirements
        best = min(
            self._rounds, key=lambda r: (r.excess(asked.max_latency_ms, asked.max_rss_bytes), -r.results[0].round)
        )
        plan = dataclasses.replace(best.plan, rounds=tuple(x for r in self._rounds for x in r.results))
        again = best is not self._rounds[-1]
        if again or self._job.spec.tune or refines(self._job):
            compressed = compressed_by(self._calibrated, plan, compressed.reference)
            compressed = finished(self._job, compressed, self._folder, self._notifier)
            return delivered(self._job, compressed, self._notifier, self._destination())
        return deliver(
            compressed.model, plan, compressed.encoded, compressed.reference, self._job.evaluation, destination,
            self._notifier.progress, activity=compressed.activity, staged=staged,
        )  # fmt: skip

    def _destination(self) -> Destination:
        destination = destination_of(self._job, self._folder, force=self._force)
        return dataclasses.replace(destination, measurer=self._measurer)


def _line(result: RoundResult) -> str:
    predicted = "" if result.predicted_ms is None else f", {result.predicted_ms:.3g} predicted"
    sure = f" (+-{result.spread:.0%} in {result.visits} visits{predicted})"
    return (
        f"round {result.round}, {result.board}: {result.measured_ms:.3g} ms per token{sure}, "
        f"{result.measured_rss_bytes / 1e6:.1f} MB over the empty runtime ({result.predicted_rss_bytes / 1e6:.1f} "
        f"predicted): {'holds' if result.met else 'does not hold'}"
    )
