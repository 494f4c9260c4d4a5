"""The energy of one token, estimated from published constants of one technology.

It counts what a token must move and compute and nothing else: no leakage, no instruction fetch, no idle cores. It
serves to compare artifacts, not to plan a battery.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from exporters.formats.catalog import format_named
from exporters.graph_nodes import Workload

SOURCE: Final = "M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014, 45 nm at 0.9 V"
DRAM_PJ_PER_BIT: Final = 1300 / 64
"""The lower end of 1.3 to 2.6 nJ for 64 bits."""
CACHE_PJ_PER_BIT: Final = 100 / 64
"""100 pJ for 64 bits from 1 MB of SRAM."""
MAC_PJ: Final = {8: 0.2 + 0.1, 16: 1.1 + 0.4, 32: 3.7 + 0.9}
"""Multiply and add by bits of the weight: int8 with an int32 sum, fp16, fp32."""
ACCUMULATE_PJ: Final = {8: 0.1, 16: 0.4, 32: 0.9}
"""The add alone, which is all that a spike asks for."""


@dataclass(frozen=True)
class EnergyEstimate:
    """Microjoules of one token, estimated. macs are of dense inputs; accumulates are synaptic operations of spikes.

    skipped: products that need not be computed because the input is zero.
    """

    memory_uj: float
    compute_uj: float
    macs: int
    accumulates: int
    skipped: int
    from_cache: bool
    source: str = SOURCE

    @property
    def total_uj(self) -> float:
        return self.memory_uj + self.compute_uj


@dataclass(frozen=True)
class Activity:
    """Of one layer's inputs on the calibration text: the share that is not zero, and whether those of a product are
    spikes: all of one size, of either sign. counts: they are whole numbers of spikes, that is, their sizes differ."""

    nonzero: float
    spikes: bool
    counts: bool = False


def estimate_energy(work: Workload, cache_bytes: int, activity: Mapping[str, Activity] | None = None) -> EnergyEstimate:
    """Energy of one token from what it moves and computes.

    Args:
        cache_bytes: the target's last cache; weights that fit into it are read from there.
        activity: by layer path; layers without are dense. A zero input costs nothing,
            although today's dense kernels multiply with it all the same.
    """
    from_cache = work.weight_bytes + 2 * work.state_bytes <= cache_bytes
    per_bit = CACHE_PJ_PER_BIT if from_cache else DRAM_PJ_PER_BIT
    macs = accumulates = skipped = 0
    compute_pj = 0.0
    for node in work.nodes:
        if not node.is_matrix:
            continue
        seen = (activity or {}).get(node.layer, Activity(1.0, False))
        done = round(seen.nonzero * node.weights)
        skipped += node.weights - done
        bits = format_named(node.format).operand_bits if node.format else 8
        if seen.spikes:
            accumulates += done
            compute_pj += done * ACCUMULATE_PJ[bits]
        else:
            macs += done
            compute_pj += done * MAC_PJ[bits]
    memory_pj = 8 * (work.weight_bytes + 2 * work.state_bytes) * per_bit
    return EnergyEstimate(memory_pj / 1e6, compute_pj / 1e6, macs, accumulates, skipped, from_cache)
