"""Percentiles and spreads by hand, a clock that follows a script, and the bandwidth it yields."""

from __future__ import annotations

import pytest
from machines import ScriptedClock

from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.manifest import Percentiles
from targets.device import bandwidth
from targets.device.bandwidth import buffer_bytes, read_bandwidth_gbs
from targets.device.clock import (
    SystemClock,
    Timed,
    median,
    percentiles,
    timed,
)

MIB = 1 << 20


def test_percentiles_by_hand():
    """Eleven samples 0, 10, .., 100: percentile p lies at p; of two samples the p-th lies p % of the way."""
    assert percentiles([float(10 * i) for i in reversed(range(11))]) == Percentiles(50.0, 90.0, 95.0, 99.0)
    assert percentiles([1.0, 2.0]) == Percentiles(1.5, 1.9, 1.95, 1.99)
    assert percentiles([7.0]) == Percentiles(7.0, 7.0, 7.0, 7.0)


def test_a_median_by_hand():
    samples = [1.0, 2.0, 4.0, 8.0, 100.0]
    assert median(samples) == 4.0


@pytest.mark.parametrize("say", [percentiles, median])
def test_no_samples(say):
    with pytest.raises(SlmcError, match="no samples"):
        say([])


def test_timed_takes_both_times():
    assert timed(ScriptedClock(), lambda: None) == Timed(wall_ms=2.0, cpu_ms=0.5)


def test_system_clock_counts_work_as_cpu_time():
    took = timed(SystemClock(), lambda: sum(range(200_000)))
    assert took.cpu_ms > 0 and took.wall_ms > 0


@pytest.mark.parametrize(
    ("cache", "free", "expected"),
    [
        (MIB, None, 64 * MIB),
        (32 * MIB, None, 256 * MIB),
        (256 * MIB, None, 512 * MIB),
        (480 * MIB, None, 960 * MIB),
        (MIB, 100 * MIB, 25 * MIB),
    ],
)
def test_buffer(cache, free, expected):
    assert buffer_bytes(cache, free) == expected


def test_too_little_memory_to_measure_memory():
    with pytest.raises(NotAvailable, match="free some memory"):
        buffer_bytes(32 * MIB, 255 * MIB)


def test_bandwidth_by_a_scripted_clock(monkeypatch):
    """8 MiB in 0.5 ms of CPU time are 16.777216 GB/s."""
    monkeypatch.setattr(bandwidth, "available_bytes", lambda: 32 * MIB)
    assert read_bandwidth_gbs(MIB, ScriptedClock()) == pytest.approx(16.777216)


def test_bandwidth_of_this_machine_is_that_of_a_computer():
    assert 0.1 < read_bandwidth_gbs(MIB) < 2000
