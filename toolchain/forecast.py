"""What a build will take in time, memory and disk, estimated before it starts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from toolchain.delivery.reports import units
from toolchain.evidence.quality import KEEP_BYTES
from toolchain.model.residency import bytes_from_disk, bytes_in_memory, moment_bytes
from toolchain.prepare import Prepared

ROUNDING_FLOPS = 6
"""Operations of GPTQ per weight and column that follows it, range search included: a rough guess, not timed."""

EXPORT_S = 20.0
MEASURE_S = 30.0


@dataclass(frozen=True)
class Forecast:
    """Estimates, not measurements; bytes, seconds."""

    evaluations: int
    seconds: float
    memory_bytes: int
    disk_bytes: int
    smallest_bytes: int
    fp32_bytes: int

    def text(self) -> str:
        return (
            f"estimated: {self.evaluations} evaluations, about {self.seconds / 60:.1f} minutes, "
            f"{units.bytes_text(self.memory_bytes)} of memory, {units.bytes_text(self.disk_bytes)} of disk while it "
            f"works; the smallest possible artifact has {units.bytes_text(self.smallest_bytes)} "
            f"of {units.bytes_text(self.fp32_bytes)}"
        )


def forecast(prepared: Prepared) -> Forecast:
    """Estimate a build from the model's size and the speed of one matrix product timed here."""
    problem, tree = prepared.problem, prepared.model.tree
    effort = problem.effort
    flops = _flops_per_second()
    formats = {c.format for options in problem.options.values() for c in options}
    evaluations = len(formats) + 2 * (effort.budgets + 1) + effort.bisections
    linear = sum(layer.params for layer in tree.layers if layer.kind == "linear")
    forward = 2 * linear / flops
    evidence = 4 * forward * len(prepared.calibration.ids)
    judging = 1.3 * forward * len(prepared.evaluation.ids) * (evaluations + 1)
    rounding = sum(
        ROUNDING_FLOPS * layer.params * layer.cols / flops * len(problem.options[layer.path]) for layer in tree.layers
    )
    vocabulary = tree.vocabulary
    moments = moment_bytes(tree)
    logits = 4 * vocabulary * len(prepared.evaluation.ids)
    stored = sum(
        bytes_for(format_named(c.format), layer.rows, layer.cols)
        for layer in tree.layers
        for c in problem.options[layer.path]
    )
    on_disk = prepared.model.residency == "disk"
    largest = problem.bytes({path: options[0] for path, options in problem.options.items()})
    held = bytes_from_disk(tree, largest) if on_disk else bytes_in_memory(tree)
    return Forecast(
        evaluations,
        evidence + judging + rounding + EXPORT_S + MEASURE_S,
        held + min(logits, KEEP_BYTES),
        stored + moments + tree.bytes_fp32 // 4,
        problem.smallest_bytes,
        tree.bytes_fp32,
    )


def _flops_per_second() -> float:
    """Operations per second of a float32 product of the size that models have."""
    a, b = torch.ones(512, 512), torch.ones(512, 512)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * 512**3 / best
