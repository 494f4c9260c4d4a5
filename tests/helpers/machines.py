"""Parts of a machine for tests: a clock, and the files that describe it."""

from __future__ import annotations

from pathlib import Path


class ScriptedClock:
    """Every look at it is 2 ms of wall and 0.5 ms of CPU time later than the one before."""

    def __init__(self) -> None:
        self.wall, self.cpu = 0, 0

    def wall_ns(self) -> int:
        self.wall += 2_000_000
        return self.wall

    def cpu_ns(self) -> int:
        self.cpu += 500_000
        return self.cpu


def write(root: Path, files: dict[str, str]) -> Path:
    """Write files, by their names below `root`; returns `root`."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root
