"""How fast one thread of this machine reads memory: the ceiling of token generation, measured."""

from __future__ import annotations

import numpy as np

from exporters.artifact.errors import NotAvailable
from targets.device.clock import Clock, SystemClock, median
from targets.device.memory import available_bytes

_LARGEST_BYTES = 512 << 20
_SMALLEST_BYTES = 64 << 20
_PASSES = 9
_BUDGET_NS = 1_000_000_000


def buffer_bytes(cache_bytes: int, free_bytes: int | None) -> int:
    """Bytes to read: eight times the last cache, within 64 to 512 MiB unless twice the cache are more, and never more
    than a quarter of the free memory.

    Raises:
        NotAvailable: that is less than twice the cache, so that memory would not be what is measured.
    """
    wanted = max(min(max(8 * cache_bytes, _SMALLEST_BYTES), _LARGEST_BYTES), 2 * cache_bytes)
    allowed = wanted if free_bytes is None else min(wanted, free_bytes // 4)
    if allowed < max(2 * cache_bytes, 1 << 20):
        raise NotAvailable(
            f"read bandwidth: {allowed} bytes can be spared, twice the cache of {cache_bytes} bytes are needed; "
            "free some memory"
        )
    return allowed & ~4095


def read_bandwidth_gbs(cache_bytes: int, clock: Clock | None = None) -> float:
    """Single-thread read bandwidth from DRAM in GB/s (1e9 bytes): the median of up to 9 passes within one second.

    The maximum of int32 is taken because numpy's loop for it is vectorised on every CPU and only reads. CPU time is
    taken so that a program that shares the core does not pass for slow memory.

    Raises:
        NotAvailable: too little free memory.
    """
    clock = clock or SystemClock()
    buffer = np.ones(buffer_bytes(cache_bytes, available_bytes()) // 4, np.int32)
    samples: list[float] = []
    begin = clock.wall_ns()
    while len(samples) < 3 or (len(samples) < _PASSES and clock.wall_ns() - begin < _BUDGET_NS):
        start = clock.cpu_ns()
        buffer.max()
        samples.append(buffer.nbytes / max(clock.cpu_ns() - start, 1))
    return median(samples)
