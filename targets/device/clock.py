"""The clock, and what is said of many samples: percentiles, median, spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import Percentiles

_NS_PER_MS = 1e6


class Clock(Protocol):
    """Two times that only go forward, in nanoseconds."""

    def wall_ns(self) -> int:
        """Time as the user waits for it."""

    def cpu_ns(self) -> int:
        """Time that all threads of this process spent on a CPU; other programs do not count."""


class SystemClock:
    """This machine's clock."""

    def wall_ns(self) -> int:
        return time.perf_counter_ns()

    def cpu_ns(self) -> int:
        return time.process_time_ns()


@dataclass(frozen=True)
class Timed:
    wall_ms: float
    cpu_ms: float


def timed(clock: Clock, call: Callable[[], object]) -> Timed:
    """What one call took.

    Wall time is taken around the rest: a process that has used up its share of a core is stopped where it enters the
    kernel, and to ask for its CPU time is such a place.
    """
    wall, cpu = clock.wall_ns(), clock.cpu_ns()
    call()
    cpu, wall = clock.cpu_ns() - cpu, clock.wall_ns() - wall
    return Timed(wall / _NS_PER_MS, cpu / _NS_PER_MS)


def percentiles(samples: Sequence[float]) -> Percentiles:
    """p50, p90, p95, p99, interpolated between neighbouring samples."""
    p50, p90, p95, p99 = np.percentile(_some(samples), [50, 90, 95, 99]).tolist()
    return Percentiles(p50, p90, p95, p99)


def median(samples: Sequence[float]) -> float:
    return float(np.median(_some(samples)))


def low_decile(samples: Sequence[float]) -> float:
    """What nine of ten samples exceed: the time on a machine that nothing disturbs, without the one lucky sample."""
    return float(np.percentile(_some(samples), 10))


def _some(samples: Sequence[float]) -> Sequence[float]:
    if not samples:
        raise SlmcError("no samples were taken, so there is nothing to say of them; measure one token or more")
    return samples
