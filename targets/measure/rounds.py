"""Several artifacts measured in turn, a process each time, so that what slows the machine slows all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from exporters.artifact.errors import SlmcError
from targets.device.measurement import Measurement, MeasureRequest

Measure = Callable[[MeasureRequest], Measurement]
_SAMPLES = (
    "prompt_wall_ms", "prompt_cpu_ms", "decode_wall_ms", "decode_cpu_ms", "reference_wall_ms", "reference_cpu_ms",
)  # fmt: skip


def measure_in_turn(measures: Sequence[Measure], request: MeasureRequest) -> tuple[tuple[Measurement, ...], ...]:
    """For each of `measures` its `request.repetitions` processes of one repetition; the i-th of all ran side by side.

    The read bandwidth is measured in the first process only. A single one has all its repetitions in one process.

    Raises:
        SlmcError, NotAvailable: as targets.measure.child.
    """
    if len(measures) == 1:
        return ((measures[0](request),),)
    taken: list[list[Measurement]] = [[] for _ in measures]
    for turn in range(request.repetitions):
        once = dataclasses.replace(request, repetitions=1, bandwidth=request.bandwidth and turn == 0)
        for measure, own in zip(measures, taken, strict=True):
            own.append(measure(once))
    return tuple(map(tuple, taken))


def merged(rounds: Sequence[Measurement]) -> Measurement:
    """All samples of several processes in order of time; conditions before the first and after the last.

    Memory, load and first token are those of the process with the highest peak; the bandwidth is the one measured.

    Raises:
        SlmcError: no measurement at all.
    """
    if not rounds:
        raise SlmcError("no measurement was made; ask for one repetition or more")
    worst = max(rounds, key=lambda m: m.ended.peak_bytes)
    samples = {name: tuple(x for m in rounds for x in getattr(m, name)) for name in _SAMPLES}
    spent = [m.generation_uj for m in rounds if m.generation_uj is not None]
    return dataclasses.replace(
        worst,
        **samples,  # type: ignore[arg-type]
        repetitions=sum(m.repetitions for m in rounds),
        read_bandwidth_gbs=next((m.read_bandwidth_gbs for m in rounds if m.read_bandwidth_gbs is not None), None),
        temperature_before_c=rounds[0].temperature_before_c,
        temperature_after_c=rounds[-1].temperature_after_c,
        before=rounds[0].before,
        after=rounds[-1].after,
        generation_uj=sum(spent) if len(spent) == len(rounds) else None,
    )
