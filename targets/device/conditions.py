"""What the machine did beside the work: clock, governor, temperature, throttling; and what makes a figure doubtful."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from targets.device.clock import median
from targets.device.host import temperature_c

_ROOT = Path("/")
SLOWED: Final = 1.1
"""The reference work's last third over its first third in CPU time, from which the machine counts as slowed down."""
BUSY: Final = 1.2
"""Wall over CPU time of the reference work from which other programs count as in the way."""
HELD_UP: Final = 2.0
"""Wall over CPU time from which a process counts as held up all the time: it gets less than half of a core."""
HOT_C: Final = 80.0
"""Raspberry Pi documentation, Frequency management and thermal control: the Arm cores are slowed from 80 degrees on."""


@dataclass(frozen=True)
class Conditions:
    """One look at the machine; None for what it does not say.

    clock_mhz: the first core's, as the kernel last set it. throttle_events: how often the hardware has slowed a core
    since it started (x86); undervolted: what a Raspberry Pi's firmware says of its supply.
    """

    governor: str | None
    clock_mhz: float | None
    temperature_c: float | None
    throttle_events: int | None
    undervolted: bool | None


def conditions(root: Path = _ROOT) -> Conditions:
    """The machine as it is now, from /sys below `root`."""
    cpus = root / "sys/devices/system/cpu"
    clock = _number(cpus / "cpu0/cpufreq/scaling_cur_freq")
    events = [_number(path) for path in sorted(cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))]
    known = [event for event in events if event is not None]
    alarms = [_number(path) for path in (root / "sys/class/hwmon").glob("hwmon*/in0_lcrit_alarm")]
    return Conditions(
        _text(cpus / "cpu0/cpufreq/scaling_governor"),
        None if clock is None else clock / 1e3,
        temperature_c(root),
        int(sum(known)) if known else None,
        any(alarms) if alarms else None,
    )


def doubts(
    reference_cpu_ms: tuple[float, ...],
    wait: float,
    before: Conditions | None,
    after: Conditions | None,
    usual_wait: float = 1.0,
) -> tuple[str, ...]:
    """What makes a measurement less than it seems, in sentences; none on a quiet machine at one speed.

    reference_cpu_ms: of the reference work, in order; wait: its wall time over its CPU time; usual_wait: what the
    machine always makes a process wait.
    """
    found = []
    trend = slowing(reference_cpu_ms)
    if trend > SLOWED:
        found.append(f"the machine slowed down by {trend - 1:.0%} meanwhile: the reference work shows it")
    if wait > BUSY * usual_wait:
        found.append(
            f"other programs took {1 - usual_wait / wait:.0%} of the core: wall times are too long, CPU times hold"
        )
    if before is not None and after is not None:
        found += _between(before, after)
    return tuple(found)


def slowing(times: tuple[float, ...]) -> float:
    """Median of the last third over median of the first; 1 for fewer than six, which say nothing of a trend."""
    third = len(times) // 3
    return median(times[-third:]) / median(times[:third]) if third >= 2 else 1.0


def _between(before: Conditions, after: Conditions) -> list[str]:
    found = []
    if (after.throttle_events or 0) > (before.throttle_events or 0):
        found.append(f"the processor throttled itself {after.throttle_events - before.throttle_events} times")  # type: ignore[operator]
    if after.undervolted:
        found.append("the board's supply voltage was too low: its firmware slows the cores then")
    if after.temperature_c is not None and after.temperature_c >= HOT_C:
        found.append(f"the processor has {after.temperature_c:.0f} degrees: cool it, boards slow down from {HOT_C:.0f}")
    if before.clock_mhz and after.clock_mhz and after.clock_mhz * SLOWED < before.clock_mhz:
        found.append(f"the clock fell from {before.clock_mhz:.0f} to {after.clock_mhz:.0f} MHz")
    if after.governor is not None and after.governor not in ("performance", "schedutil"):
        found.append(f"the governor is {after.governor!r}; 'performance' keeps the clock where it is")
    return found


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip() or None
    except OSError:
        return None


def _number(path: Path) -> float | None:
    text = _text(path) or ""
    return float(text) if text.isdigit() else None
