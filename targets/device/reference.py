"""A fixed piece of work that is timed beside everything else: it varies only if the machine does."""

from __future__ import annotations

import numpy as np

from targets.device.clock import Clock, Timed, median, timed

PIECES = 5


def reference_work() -> None:
    """Some 1 ms of one core: float and integer loops within the first cache, no memory."""
    real, whole = np.ones(2048, np.float32), np.arange(2048, dtype=np.int32)
    for _ in range(500):
        np.multiply(real, np.float32(0.999), out=real)
        np.add(real, np.float32(0.001), out=real)
        np.bitwise_xor(whole, 0x5A5A, out=whole)


def timed_reference(clock: Clock) -> Timed:
    """The median piece of five, wall and CPU time each by itself, so that one interruption does not count."""
    pieces = [timed(clock, reference_work) for _ in range(PIECES)]
    return Timed(median([p.wall_ms for p in pieces]), median([p.cpu_ms for p in pieces]))
