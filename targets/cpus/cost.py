"""What an artifact will take on a target: bytes exactly, time per token from measured costs, or else estimated.

Measured: every node is priced by a law fitted to the target's table of measured nodes,
    us = a + b (rows + cols) + r(W) rows cols          a, b, r >= 0
where W, the bytes that one token reads, decides which cache they come from, and r is linear in log W between the
working sets that were measured. a is what a node costs that computes nothing. Costs of one thread are CPU time: on a
device that gives a process a part of a core only, the sum is stretched to the wall time that a user waits.
Estimated: the time that the target's memory needs for those bytes, or its cores for the products if that is longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from exporters.artifact.errors import NotAvailable
from exporters.graph_nodes import GraphNode, Workload
from targets.cpus.spec import CostRow, Cpu

PLAIN: Final = "Add"
"""The operator whose price any unlisted operator without a matrix gets."""
SESSION: Final = "Session"
"""What one call costs besides its nodes, by the number of states."""
DENSE: Final = "QLinear"
"""The operator whose price any unlisted operator with a matrix gets, at the same bits per weight."""

# Multiply-accumulates of 8-bit integers in one instruction of each set: Intel 64 and IA-32 Architectures Software
# Developer's Manual (PMADDWD, VPMADDUBSW, VPDPBUSD); Arm Architecture Reference Manual (SMLAL, SDOT, SMMLA).
_MACS: Final = {
    "sse2": 8, "avx2": 16, "avx_vnni": 32, "avx512": 32, "avx512_vnni": 64,
    "neon": 8, "neon_dotprod": 16, "neon_i8mm": 32,
}  # fmt: skip
NODE_CYCLES: Final = 1000
"""Assumed for one node of ONNX Runtime where no cost was measured."""


@dataclass(frozen=True)
class Prediction:
    """Milliseconds of one generated token. basis says how it was come by; assumed lists what had no row of its own.

    matrices + others + call is the mean, for 'measured costs'; for 'estimate' call is 0. decode is the median, which is
    the mean except where pauses hold a process up (`Cpu.median_ms`).
    """

    decode_ms: float
    basis: Literal["measured costs", "estimate"]
    matrices_ms: float
    others_ms: float
    call_ms: float
    weight_bytes: int
    assumed: tuple[str, ...]


@dataclass(frozen=True)
class Law:
    """One operator with one format: us = a + b (rows + cols) + r(W) rows cols."""

    a: float
    b: float
    log_sets: tuple[float, ...]
    rates: tuple[float, ...]
    bits_per_weight: float

    def us(self, rows: int, cols: int, working_set_bytes: int) -> float:
        rate = float(np.interp(np.log(max(working_set_bytes, 1)), self.log_sets, self.rates))
        return self.a + self.b * (rows + cols) + rate * rows * cols


def predict(cpu: Cpu, work: Workload, threads: int = 1) -> Prediction:
    """Time per generated token on a target.

    Raises:
        NotAvailable: the target's file has neither costs nor what an estimate needs.
    """
    return _from_costs(cpu, work, threads) if cpu.costs else _estimate(cpu, work, threads)


def fit_law(rows: Sequence[CostRow]) -> Law:
    """The law of rows of one operator and format, by least squares of the relative error.

    Working sets within a factor of two count as one. Coefficients that would be negative are left out.
    """
    matrix = rows[0].cols > 1
    knots = _knots([row.working_set_bytes for row in rows])
    columns: list[list[float]] = [[1.0 for _ in rows], [float(row.rows + row.cols) for row in rows]]
    for k in range(len(knots)) if matrix else ():
        shares = [_hat(knots, k, row.working_set_bytes) for row in rows]
        columns.append([share * row.rows * row.cols for share, row in zip(shares, rows, strict=True)])
    solution = _non_negative(np.array(columns).T / np.array([[row.us] for row in rows]))
    rates = tuple(solution[2:]) if matrix else (0.0,) * len(knots)
    weights = sum(row.rows * row.cols for row in rows)
    return Law(solution[0], solution[1], tuple(knots), rates, 0.0 if not matrix else _bits(rows, weights))


def _bits(rows: Sequence[CostRow], weights: int) -> float:
    """Bits per weight as stored, by the format's own size law."""
    from exporters.formats.base import bytes_for
    from exporters.formats.catalog import format_named

    fmt = format_named(rows[0].format)
    return 8 * sum(bytes_for(fmt, row.rows, row.cols) for row in rows) / weights


def _knots(sets: Iterable[int]) -> list[float]:
    """Logarithms of the working sets, those within a factor of two of a smaller one left out."""
    knots: list[float] = []
    for size in sorted(sets):
        log = float(np.log(max(size, 1)))
        if not knots or log - knots[-1] > np.log(2):
            knots.append(log)
    return knots


def _hat(knots: list[float], k: int, working_set_bytes: int) -> float:
    """The share of knot k in a linear interpolation at this working set."""
    unit = np.zeros(len(knots))
    unit[k] = 1.0
    return float(np.interp(np.log(max(working_set_bytes, 1)), knots, unit))


def _non_negative(design: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> list[float]:
    """x >= 0 that brings design @ x closest to 1: terms with the most negative coefficient go, one by one."""
    used = list(range(design.shape[1]))
    scale = np.maximum(np.abs(design).max(axis=0), 1e-30)
    while True:
        found = np.linalg.lstsq(design[:, used] / scale[used], np.ones(len(design)), rcond=None)[0] / scale[used]
        if not used or found.min() >= 0:
            break
        del used[int(np.argmin(found * scale[used]))]
    result = np.zeros(design.shape[1])
    result[used] = found
    return [float(x) for x in result]


class _Prices:
    """The laws of one thread count, and what to take for a node that has none of its own."""

    def __init__(self, costs: Sequence[CostRow], threads: int) -> None:
        measured = sorted({row.threads for row in costs}, key=lambda t: (abs(t - threads), t))
        self.threads = measured[0]
        groups: dict[tuple[str, str, int], list[CostRow]] = {}
        for row in costs:
            if row.threads == self.threads:
                groups.setdefault((row.operator, row.format, row.activation_bits), []).append(row)
        self._laws = {key: fit_law(rows) for key, rows in groups.items()}
        self.assumed = [] if self.threads == threads else [f"{threads} threads as {self.threads}"]

    def us(self, node: GraphNode, working_set_bytes: int) -> float:
        """Steps of a fused node behind its first cost what they compute: less what a plain node costs that does not."""
        law = self._laws.get((PLAIN, "", 0))
        empty = law.a if law and node.behind else 0.0
        full, own = self._alone(node, working_set_bytes)
        return full - min(own, empty)

    def _alone(self, node: GraphNode, working_set_bytes: int) -> tuple[float, float]:
        """us of a node of its own, and how many of them it would take for nothing."""
        law = self._laws.get((node.operator, node.format, node.activation_bits))
        if law is not None:
            return law.us(node.rows, node.cols, working_set_bytes), law.a
        if node.is_matrix:
            return self._like_others(node, working_set_bytes)
        return self._plain(node, working_set_bytes)

    def session_us(self, states: int, working_set_bytes: int) -> float:
        law = self._laws.get((SESSION, "", 0))
        if law is None:
            self.assumed.append(f"{SESSION} as nothing")
            return 0.0
        return law.us(states, 1, working_set_bytes)

    def _plain(self, node: GraphNode, working_set_bytes: int) -> tuple[float, float]:
        law = self._laws.get((PLAIN, "", 0))
        self.assumed.append(f"{node.operator} as {PLAIN if law else 'nothing'}")
        return (law.us(node.rows, 1, working_set_bytes), law.a) if law else (0.0, 0.0)

    def _by_bits(self, operator: str, activation_bits: int) -> dict[float, Law]:
        """An operator's laws at one width of inputs, by bits per weight."""
        laws = self._laws.items()
        return {law.bits_per_weight: law for (o, f, a), law in laws if (o, a) == (operator, activation_bits) and f}

    def _like_others(self, node: GraphNode, working_set_bytes: int) -> tuple[float, float]:
        """A matrix in a format that was not measured: between the two formats with next fewer and next more bits."""
        own = self._by_bits(node.operator, node.activation_bits)
        laws = own or self._by_bits(DENSE, node.activation_bits or 32) or self._by_bits(DENSE, 0)
        if not laws:
            raise NotAvailable(
                f"the target's costs have no row for {node.operator} {node.format}; "
                "measure them with 'slmc targets probe -o FILE'"
            )
        self.assumed.append(f"{node.operator} {node.format} as {node.operator if own else DENSE} of as many bits")
        bits = sorted(laws)
        times = [laws[b].us(node.rows, node.cols, working_set_bytes) for b in bits]
        share = 8 * node.nbytes / node.weights
        return float(np.interp(share, bits, times)), float(np.interp(share, bits, [laws[b].a for b in bits]))


def _from_costs(cpu: Cpu, work: Workload, threads: int) -> Prediction:
    prices = _Prices(cpu.costs, threads)
    size = work.weight_bytes + 2 * work.state_bytes
    matrices = sum(prices.us(node, size) for node in work.nodes if node.is_matrix)
    others = sum(prices.us(node, size) for node in work.nodes if not node.is_matrix)
    call = prices.session_us(work.states, size)
    assumed = tuple(dict.fromkeys(prices.assumed))
    if prices.threads == 1:
        matrices, others, call = ((cpu.wait or 1.0) * us for us in (matrices, others, call))
    total = (matrices + others + call) / 1e3
    return Prediction(
        cpu.median_ms(total) if prices.threads == 1 else total,
        "measured costs",
        matrices / 1e3,
        others / 1e3,
        call / 1e3,
        work.weight_bytes,
        assumed,
    )


def _estimate(cpu: Cpu, work: Workload, threads: int) -> Prediction:
    bandwidth, of = read_gbs(cpu, work.weight_bytes, threads)
    if cpu.clock_ghz is None or cpu.isa not in _MACS:
        raise NotAvailable(
            f"target {cpu.name}: no costs, and no clock_ghz to estimate from; measure there with "
            "'slmc targets probe -o FILE', or state clock_ghz in a file of your own"
        )
    reading = work.weight_bytes / bandwidth / 1e6
    cores = min(threads, cpu.cores or threads)
    macs = sum(node.weights for node in work.nodes if node.is_matrix)
    computing = macs / (_MACS[cpu.isa] * cpu.clock_ghz * 1e6 * cores)
    others = sum(not node.behind for node in work.nodes) * NODE_CYCLES / (cpu.clock_ghz * 1e6)
    assumed = (of, f"{_MACS[cpu.isa]} products per cycle and core", f"{NODE_CYCLES} cycles per node")
    matrices = max(reading, computing)
    return Prediction(matrices + others, "estimate", matrices, others, 0.0, work.weight_bytes, assumed)


def read_gbs(cpu: Cpu, working_set_bytes: int, threads: int) -> tuple[float, str]:
    """What the target reads in GB/s when a token needs so many bytes, and which of its figures that is.

    Raises:
        NotAvailable: its file has no figure for memory.
    """
    measured = sorted((row for row in cpu.bandwidths if row.threads == threads), key=lambda row: row.working_set_bytes)
    if measured:
        logs = [np.log(max(row.working_set_bytes, 1)) for row in measured]
        gbs = float(np.interp(np.log(max(working_set_bytes, 1)), logs, [row.gbs for row in measured]))
        return gbs, "bandwidth as measured"
    if cpu.bandwidth_gbs is not None:
        return cpu.bandwidth_gbs, "bandwidth of one thread"
    if cpu.peak_bandwidth_gbs is not None:
        return cpu.peak_bandwidth_gbs, "peak bandwidth, which no program reaches"
    raise NotAvailable(
        f"target {cpu.name}: no costs and no bandwidth, so no time can be predicted; measure there with "
        "'slmc targets probe -o FILE', or state bandwidth_gbs in a file of your own"
    )
