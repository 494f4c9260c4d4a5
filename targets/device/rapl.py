"""The energy that a processor says it has spent, from Linux' powercap counters (RAPL); that of whole packages."""

from __future__ import annotations

from pathlib import Path

_POWERCAP = Path("/sys/class/powercap")


def counter_uj(folder: Path = _POWERCAP) -> dict[str, tuple[int, int]] | None:
    """RAPL's packages: name -> (microjoules so far, where the counter begins anew); None where none can be read.

    They count the whole package and all its programs. Linux lets only root read them unless told otherwise.
    """
    found = {}
    for package in sorted(folder.glob("intel-rapl:[0-9]*")):
        if package.name.count(":") != 1:
            continue
        try:
            now = int((package / "energy_uj").read_text())
            found[package.name] = (now, int((package / "max_energy_range_uj").read_text()))
        except (OSError, ValueError):
            return None
    return found or None


def spent_uj(before: dict[str, tuple[int, int]] | None, after: dict[str, tuple[int, int]] | None) -> int | None:
    """Microjoules between two readings, a counter that began anew among them; None if either is missing."""
    if before is None or after is None or before.keys() != after.keys():
        return None
    return sum((now - before[name][0]) % (limit + 1) for name, (now, limit) in after.items())
