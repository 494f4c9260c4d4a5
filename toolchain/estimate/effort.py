"""Estimates of the time, memory and disk space that a build needs, made before it starts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from targets.device import quantities
from toolchain.compress.recipe import LayerConfig
from toolchain.model.family import LanguageModel
from toolchain.model.offloading import bytes_from_disk, bytes_in_memory, hessian_bytes
from toolchain.model.tree import Layer
from toolchain.quality.reference import CHUNK, KEEP_BYTES
from toolchain.search.activations import BISECTIONS
from toolchain.search.budgets import budgets
from toolchain.search.dense_screening import is_large
from toolchain.search.problem import Problem
from toolchain.search.screening import sparse_options
from toolchain.search.search import within_first
from toolchain.search.tiers import global_tier
from toolchain.tuning.distil import Schedule

ROUNDING_EVALUATIONS = {"fp32": 0, "int8": 1, "search": 1 + BISECTIONS}
"""The most evaluations of the tier that rounds inputs, by the value of --activations."""

FREE_SHARE = 0.5
"""Share of the sparse options that are left after screening. A guess."""

DENSE_SHARE = 0.35
"""Share of the dense options that are left for a large model under a memory limit. A guess."""

JOINT_COST = 2.5
"""Time of the joint pass for a sparse format, relative to GPTQ. A guess."""

DESCENT_COST = 4
"""Time of a layer's refinement beside GPTQ's: a guess."""

ROUNDING_FLOPS = 6
"""Operations of GPTQ for each weight and each later column, range search included. A rough guess, not timed."""

COLUMN_S = 8e-5
"""Seconds that a pass takes for a column whatever its length: 0.1 s were seen for 576 columns of 1536 weights."""

ESTIMATE_S = 3e-8
"""Seconds to round a weight to nearest and read it back, for screening: a guess."""

EXPORT_S = 20.0
MEASURE_S = 30.0


@dataclass(frozen=True)
class Forecast:
    """What a build is expected to need.

    evaluations: at most; rounding_evaluations of them round inputs. dense_pairs, sparse_pairs: pairs of a layer and a
    format. tuning_seconds: the part of `seconds` that --tune takes.
    """

    evaluations: int
    rounding_evaluations: int
    dense_pairs: int
    sparse_pairs: int
    tuning_seconds: float
    seconds: float
    memory_bytes: int
    disk_bytes: int
    smallest_bytes: int
    fp32_bytes: int

    def text(self) -> str:
        return (
            f"estimated: {self.evaluations} evaluations{self._rounded()}, {self.dense_pairs} pairs of a layer and a "
            f"dense format{self._sparse()}, about {self.seconds / 60:.1f} minutes{self._tuned()}, "
            f"{quantities.bytes_text(self.memory_bytes)} of memory, {quantities.bytes_text(self.disk_bytes)} of disk "
            f"while it runs; the smallest possible artifact has {quantities.bytes_text(self.smallest_bytes)} "
            f"of {quantities.bytes_text(self.fp32_bytes)}"
        )

    def _rounded(self) -> str:
        return f" ({self.rounding_evaluations} of them with rounded inputs)" if self.rounding_evaluations else ""

    def _sparse(self) -> str:
        return f" and at most {self.sparse_pairs} with a sparse one" if self.sparse_pairs else ""

    def _tuned(self) -> str:
        return f" ({self.tuning_seconds / 60:.1f} of them for tuning)" if self.tuning_seconds else ""


def forecast(
    problem: Problem, calibration_tokens: int, evaluation_tokens: int, tune: int, *, on_disk: bool,
    token_s: float | None = None,
) -> Forecast:  # fmt: skip
    """Estimate a build from the model's size and the speed of one matrix product timed here.

    Args:
        tune: tuning steps. on_disk: whether the model's matrices stay on disk.
        token_s: seconds of reading a token, as `reading_seconds` timed it; None: told from the matrix product, which
            knows nothing of recurrences.
    """
    tree = problem.tree
    effort = problem.effort
    flops = _flops_per_second()
    dense, sparse = _pairs(problem)
    rounding = ROUNDING_EVALUATIONS[problem.activations]
    evaluations = _searched(problem, sparse=bool(sparse)) + rounding
    linear = sum(layer.params for layer in tree.layers if layer.kind == "linear")
    forward = token_s or 2 * linear / flops
    calibrating = 4 * forward * calibration_tokens
    judging = 1.3 * forward * evaluation_tokens * (evaluations + 1)
    left = DENSE_SHARE if is_large(problem) else 1.0
    weighted = [(layer, left) for layer, _ in dense] + [(layer, FREE_SHARE * JOINT_COST) for layer, _ in sparse]
    compressing = sum(_pass_seconds(layer, flops) * cost for layer, cost in weighted)
    compressing += sum(ESTIMATE_S * layer.params for layer, _ in ([*dense, *sparse] if is_large(problem) else sparse))
    if effort.refines:
        compressing += DESCENT_COST * sum(_pass_seconds(x, flops) for x in tree.layers if x.kind == "linear")
        calibrating += 2 * forward * calibration_tokens
    tuning = 4 * forward * Schedule(tune).tokens
    vocabulary = tree.vocabulary
    hessians = hessian_bytes(tree)
    logits = 4 * vocabulary * evaluation_tokens
    stored = sum(
        bytes_for(format_named(c.format), layer.rows, layer.cols)
        for layer in tree.layers
        for c in problem.options[layer.path]
    )
    largest = problem.bytes({path: options[0] for path, options in problem.options.items()})
    held = bytes_from_disk(tree, largest) if on_disk else bytes_in_memory(tree)
    return Forecast(
        evaluations=evaluations,
        rounding_evaluations=rounding,
        dense_pairs=len(dense),
        sparse_pairs=len(sparse),
        tuning_seconds=tuning,
        seconds=calibrating + judging + compressing + tuning + EXPORT_S + MEASURE_S,
        memory_bytes=held + min(logits, KEEP_BYTES),
        disk_bytes=stored + hessians + tree.bytes_fp32 // 4,
        smallest_bytes=problem.smallest_bytes,
        fp32_bytes=tree.bytes_fp32,
    )


def _searched(problem: Problem, *, sparse: bool) -> int:
    """Evaluations of the tiers before the last, if what they find keeps the limits; sparse: whether any option is."""
    uniform, _ = within_first(problem, list(global_tier(problem)), lambda pair: problem.bytes(pair[0]))
    ladder, _ = within_first(problem, budgets(problem), lambda budget: budget)
    closing = problem.effort.bisections if problem.constraints.max_drop is not None else 0
    tiers = 2 * sparse + (1 if is_large(problem) else 2)
    return (min(len(uniform), 1) if is_large(problem) else len(uniform)) + tiers * len(ladder) + closing


def _pairs(problem: Problem) -> tuple[list[tuple[Layer, LayerConfig]], list[tuple[Layer, LayerConfig]]]:
    """Pairs of a layer and an option: those that are always compressed, then those that are screened first."""
    pairs: tuple[list[tuple[Layer, LayerConfig]], list[tuple[Layer, LayerConfig]]] = [], []
    for layer in problem.tree.layers:
        options = problem.options[layer.path]
        screened = sparse_options(options)
        for config in options:
            pairs[config in screened].append((layer, config))
    return pairs


def _pass_seconds(layer: Layer, flops: float) -> float:
    """Of GPTQ over a layer."""
    return ROUNDING_FLOPS * layer.params * layer.cols / flops + COLUMN_S * layer.cols


def reading_seconds(model: LanguageModel, vocabulary: int) -> float:
    """Seconds per token of reading a chunk of text and scoring every token, measured here."""
    tokens = torch.arange(min(CHUNK, model.context or CHUNK))[None] % vocabulary
    best = float("inf")
    for _ in range(2):
        began = time.perf_counter()
        with torch.inference_mode():
            torch.log_softmax(model(tokens, model.initial_state(1))[0], -1)
        best = min(best, time.perf_counter() - began)
    return best / tokens.numel()


def _flops_per_second() -> float:
    """Operations per second of a float32 matrix product of 512 x 512, measured here."""
    a, b = torch.ones(512, 512), torch.ones(512, 512)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * 512**3 / best
