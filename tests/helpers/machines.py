"""Parts of a machine for tests: a clock, the files that describe it, and what it measures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from targets.device.measurement import Measurement
from targets.device.memory import Memory


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


def measurement_with(**changes: object) -> Measurement:
    """Two repetitions of three tokens, with any fields changed."""
    weight = Memory(1, 1, 1, 1, 0, 1)
    base = Measurement(
        cpu="c", isa="neon", threads=1, ort_version="1", native_library=None, prompt_tokens=0, generate_tokens=3,
        chunk_tokens=1, repetitions=2, random_tokens=True, load_ms=1.0, first_token_ms=1.0, prompt_wall_ms=(),
        prompt_cpu_ms=(), decode_wall_ms=(9.0,) * 6, decode_cpu_ms=(2.0, 4.0, 90.0, 3.0, 3.0, 3.0),
        reference_wall_ms=(9.0, 9.0), reference_cpu_ms=(8.0, 4.0), baseline=weight, loaded=weight, ended=weight,
        state_bytes=4, read_bandwidth_gbs=None, temperature_before_c=None, temperature_after_c=None,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)
