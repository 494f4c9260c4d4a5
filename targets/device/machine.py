"""What of this machine decides how fast and how believably a model runs on it: for slmc doctor."""

from __future__ import annotations

import re
from pathlib import Path

from targets.device.conditions import conditions
from targets.device.memory import kib_lines
from targets.device.rapl import counter_uj

_ROOT = Path("/")


def device_facts(root: Path = _ROOT) -> dict[str, str | float | int | bool | None]:
    """Name -> what the machine says below `root`; None for what it does not say."""
    now = conditions(root)
    meminfo = kib_lines(_text(root / "proc/meminfo"))
    chosen = re.search(r"\[(\w+)\]", _text(root / "sys/kernel/mm/transparent_hugepage/enabled"))
    frequencies = root / "sys/devices/system/cpu/cpu0/cpufreq"
    ends = [_text(frequencies / f"cpuinfo_{end}_freq").strip() for end in ("min", "max")]
    return {
        "governor": now.governor,
        "clock_mhz": now.clock_mhz,
        "clock_range_mhz": " to ".join(f"{int(end) // 1000}" for end in ends) if "".join(ends).isdigit() else None,
        "temperature_c": now.temperature_c,
        "throttle_events": now.throttle_events,
        "undervolted": now.undervolted,
        "free_memory_bytes": meminfo.get("MemAvailable"),
        "huge_pages": chosen[1] if chosen else None,
        "energy_counter": counter_uj(root / "sys/class/powercap") is not None,
    }


def advice(facts: dict[str, str | float | int | bool | None]) -> tuple[str, ...]:
    """What could be set better for a measurement, in sentences."""
    found = []
    if facts["governor"] not in (None, "performance", "schedutil"):
        found.append(
            f"the governor is {facts['governor']!r}; for steady times: "
            "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        )
    if facts["governor"] is None:
        found.append("the clock cannot be seen (a virtual machine?): compare CPU times beside the reference work only")
    if facts["undervolted"]:
        found.append("the supply voltage is too low; use the board's own power supply")
    return tuple(found)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
