"""How sure a measured time is: what its repetitions differ by, and several visits to a board as one measurement."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from targets.device.clock import median
from targets.device.measurement import Measurement

VISITS: Final = 3
"""The most measurements of one artifact on one board."""


def spread(measurement: Measurement) -> float:
    """Half of what the medians of its repetitions differ by, as a share of the median of all tokens."""
    times, each = measurement.decode_wall_ms, max(measurement.generate_tokens, 1)
    parts = [median(times[start : start + each]) for start in range(0, len(times), each)]
    return (max(parts) - min(parts)) / 2 / median(times) if len(parts) > 1 else 0.0


def unsure(measurement: Measurement, limit_ms: float | None, usual_wait: float) -> bool:
    """Whether another visit may decide otherwise: the limit lies within the spread, or there are reasons to doubt.

    usual_wait: wall over CPU time, as it always is on that board.
    """
    near = limit_ms is not None and abs(measurement.decode_ms.p50 / limit_ms - 1) <= spread(measurement)
    return near or bool(limit_ms is not None and measurement.doubts_beside(usual_wait))


def together(visits: Sequence[Measurement], usual_wait: float) -> Measurement:
    """One measurement with the samples of all visits; of those without a doubt, if there are any."""
    sure = [visit for visit in visits if not visit.doubts_beside(usual_wait)] or list(visits)
    first, *others = sure
    for other in others:
        first = _joined(first, other)
    return first


def _joined(one: Measurement, other: Measurement) -> Measurement:
    both = (one, other)
    energy = [each.generation_uj for each in both if each.generation_uj is not None]
    return dataclasses.replace(
        one,
        repetitions=one.repetitions + other.repetitions,
        prompt_wall_ms=one.prompt_wall_ms + other.prompt_wall_ms,
        prompt_cpu_ms=one.prompt_cpu_ms + other.prompt_cpu_ms,
        decode_wall_ms=one.decode_wall_ms + other.decode_wall_ms,
        decode_cpu_ms=one.decode_cpu_ms + other.decode_cpu_ms,
        reference_wall_ms=one.reference_wall_ms + other.reference_wall_ms,
        reference_cpu_ms=one.reference_cpu_ms + other.reference_cpu_ms,
        ended=max((each.ended for each in both), key=lambda memory: memory.peak_bytes),
        after=other.after,
        generation_uj=sum(energy) if len(energy) == len(both) else None,
    )
