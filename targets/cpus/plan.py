"""What a probe measures: formats, shapes, widths, threads, and working sets by the caches' sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from targets.cpus.spec import Cpu

STATE_WIDTH: Final = 256
STATES: Final = (4, 32, 128)
"""States of the graphs that tell what a call costs, and their width."""

QUICK_BYTES: Final = 1 << 27
"""A quick probe reads no larger working set."""


@dataclass(frozen=True)
class ProbePlan:
    """What is probed. shapes: matrices, those not square there and back; seconds: for every benchmark in every turn."""

    formats: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]
    widths: tuple[int, ...]
    threads: tuple[int, ...]
    seconds: float


FORMATS = ("fp32", "fp16", "int8", "int6-g64", "int5-g64", "int4-g32", "int4-g64", "int4-g128", "int3-g64", "int2-g64",
           "uint4-g64", "2:4/int4-g64", "4:8/int4-g64", "6:8/int4-g64", "4:8x16/int4-g64", "fp4-g16",
           "nl4-g64", "ternary")  # fmt: skip
QUICK_FORMATS = ("fp32", "fp16", "int8", "int4-g64", "int2-g64", "ternary")


def plan_for(cores: int, *, quick: bool) -> ProbePlan:
    """All cores besides one thread; quick takes about a fifth of the time and prices fewer formats."""
    threads = (1,) if cores == 1 or quick else (1, cores)
    if quick:
        return ProbePlan(QUICK_FORMATS, ((256, 256), (1024, 256), (1024, 1024)), (256, 1024), threads, 0.05)
    shapes = ((128, 128), (256, 256), (1024, 256), (512, 512), (1024, 1024), (2048, 2048))
    return ProbePlan(FORMATS, shapes, (256, 768, 2048), threads, 0.07)


def working_sets(cpu: Cpu, free_bytes: int | None, *, quick: bool = False) -> tuple[tuple[str, int], ...]:
    """(level, bytes): half of the second cache, four times it and half of the third if there is one, twice the last.

    The first cache is left out: within it numpy takes longer to begin than to read. At most an eighth of the free
    memory is used, down to a power of two, so that a probe that goes on later asks for the same; a quick one reads
    `QUICK_BYTES` at most.
    """
    l2 = cpu.l2_bytes or 1 << 19
    last = max(cpu.last_cache_bytes, l2)
    sets = [("L2", l2 // 2)]
    if last > l2:
        sets += [("L3", min(4 * l2, last // 2)), ("L3", last // 2)]
    sets.append(("memory", max(2 * last, 1 << 24)))
    most = 1 << max((free_bytes or 1 << 33) // 8, 1 << 16).bit_length() - 1
    if quick:
        most = min(most, QUICK_BYTES)
    return tuple(dict.fromkeys((level, min(size, most)) for level, size in sets))
