"""Comparison of what an artifact's manifest promises with what is measured: one table for all commands.

A tolerance is an allowance for what differs between equal artifacts (another instruction set, another text) and
DEVIATIONS standard errors of the measurement: of block means of paired differences of losses, or of a share of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from exporters.artifact.manifest import ACCURACY, Manifest
from exporters.artifact.runtimes import SLMC_RUN, STOCK
from targets.device import quantities
from targets.device.limits import measurements
from targets.device.measurement import Measurement

KEPT, BROKEN, NOT_COMPARED = "kept", "broken", "not compared"
BROKEN_EXIT_CODE: Final = 3
DEVIATIONS: Final = 4.0
"""Standard errors: chance alone goes further once in 30,000 measurements."""
BLOCK: Final = 32
"""Neighbouring tokens are averaged before their spread is taken: they are not independent."""
RUN_TOKENS: Final = 8
"""Tokens that differ behind one flipped spike, which stays in the state; of 256 in the demo's artifact, 7 do."""
SAME_TEXT, OTHER_TEXT = 0.005, 0.10
"""Shares by which figures of equal artifacts may differ: reading the same tokens, and tokens of another text."""
MEMORY_SHARE, MEMORY_BYTES = 0.10, 4 * 2**20

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Beside:
    """The beginning of the text on one runtime, and on ONNX Runtime with compiled operators: losses in nats of both
    [n], and the share of equal best tokens."""

    losses: Array
    operators: Array
    agreement: float


@dataclass(frozen=True)
class Found:
    """What was measured of an artifact; None where it was not.

    losses: nats of every prediction [n]; of a classifier, of every sentence, and right: whether its class was found.
    reference, reference_right: the fp32 model's on the same text. agreement: share of its best tokens.
    ways: runtime -> what it reads beside ONNX Runtime with operators; missing: runtime -> why there is none.
    single: share of the best tokens that are the same when single_tokens of the text are read one by one.
    """

    dataset_sha256: str | None = None
    losses: Array | None = None
    right: Array | None = None
    reference: Array | None = None
    reference_right: Array | None = None
    agreement: float | None = None
    ways: Mapping[str, Beside] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    single: float | None = None
    single_tokens: int = 0
    memory: Measurement | None = None


@dataclass(frozen=True)
class Promise:
    """One line of the verdict. margin: how much worse it might be, negative by how much it is too bad."""

    name: str
    status: str
    promised: str
    found: str
    tolerance: str
    margin: str
    why: str = ""


def verdict(manifest: Manifest, found: Found) -> tuple[Promise, ...]:
    """Every promise of the table."""
    return tuple(judge(manifest, found) for judge in PROMISES)


def broken(promises: Sequence[Promise]) -> tuple[str, ...]:
    """Names of the promises that do not hold."""
    return tuple(promise.name for promise in promises if promise.status == BROKEN)


def summary(promises: Sequence[Promise]) -> str:
    """The verdict in one line."""
    kept = sum(promise.status == KEPT for promise in promises)
    failed = broken(promises)
    if failed:
        return f"broken: {', '.join(failed)} (of {kept + len(failed)} promises that were compared)"
    return (
        f"valid: {kept} of {len(promises)} promises were compared, and hold"
        if kept
        else "valid files; no promise was compared"
    )


def size(manifest: Manifest, found: Found) -> Promise:
    """The two model files, to the byte."""
    actual = sum(entry.bytes for name, entry in manifest.files.items() if name in ("model.onnx", "model.onnx.data"))
    return _bounded("size", manifest.bytes.file, actual, 0, lambda value: f"{value:.0f} bytes")


def metric(manifest: Manifest, found: Found) -> Promise:
    """Perplexity, or accuracy, of the very tokens that the figure was taken of."""
    promised = manifest.quality
    name = "perplexity" if promised is None else promised.metric
    if promised is None:
        return _open(name, "the manifest has no figure")
    if found.losses is None:
        return _open(name, "no text was read")
    if found.dataset_sha256 != promised.dataset_sha256 or len(found.losses) < promised.tokens:
        return _open(name, f"promised of {promised.tokens} predictions in {promised.dataset}; this is other text")
    if promised.metric == ACCURACY and found.right is not None:
        room = SAME_TEXT + 2 / promised.tokens
        return _bounded(
            name, promised.compressed, float(found.right[: promised.tokens].mean()), room, _percent, more_is_better=True
        )
    room = promised.compressed * math.expm1(SAME_TEXT + DEVIATIONS * _implementations(found))
    return _bounded(
        name, promised.compressed, _perplexity(found.losses[: promised.tokens]), room, lambda value: f"{value:.4f}"
    )


def drop(manifest: Manifest, found: Found) -> Promise:
    """The share by which perplexity rises or accuracy falls against the fp32 model on the same text."""
    promised = manifest.quality
    if promised is None or found.losses is None or found.reference is None:
        return _open(
            "drop", "no fp32 model to compare with: give --reference" if promised else "no figure in the manifest"
        )
    own_error = max(promised.relative_drop_upper - promised.relative_drop, 0.0) / 1.645
    if found.right is not None and found.reference_right is not None:
        whole = max(float(found.reference_right.mean()), 1 / len(found.right))
        change = (found.reference_right - found.right) / whole
        error = math.sqrt((float(change.var()) + 1 / len(change)) / len(change))
        actual = float(change.mean())
    else:
        actual = _change(found.losses, found.reference)
        error = _standard_error(found.losses - found.reference)
    same = found.dataset_sha256 == promised.dataset_sha256
    room = (SAME_TEXT if same else OTHER_TEXT) + DEVIATIONS * math.hypot(error, own_error)
    return _bounded("drop", promised.relative_drop, actual, room, _percent)


def agreement(manifest: Manifest, found: Found) -> Promise:
    """Best tokens, or classes, that are the fp32 model's."""
    promised = manifest.quality
    if promised is None or found.agreement is None or found.losses is None:
        return _open(
            "agreement", "no fp32 model to compare with: give --reference" if promised else "no figure in the manifest"
        )
    same = found.dataset_sha256 == promised.dataset_sha256
    room = (SAME_TEXT if same else OTHER_TEXT) + _share_error(
        promised.top1_agreement, len(found.losses), promised.tokens
    )
    return _bounded("agreement", promised.top1_agreement, found.agreement, room, _percent, more_is_better=True)


def parity(runtime: str, manifest: Manifest, found: Found) -> Promise:
    """Best tokens on another runtime that are those of ONNX Runtime with compiled operators."""
    name, promised, way = f"parity with {_NAMES[runtime]}", manifest.parity, found.ways.get(runtime)
    if promised is None or way is None:
        return _open(name, "the manifest has no figure" if promised is None else _untried(runtime, found))
    shorter = min(len(way.losses) for way in found.ways.values())
    room = 2 * SAME_TEXT + _share_error(promised.top1_agreement, max(shorter, 1), promised.tokens)
    return _bounded(name, promised.top1_agreement, way.agreement, room, _percent, more_is_better=True)


def single(manifest: Manifest, found: Found) -> Promise:
    """Best tokens read one by one that are those of one call; those that are not come in runs."""
    name, promised = "parity token by token", manifest.parity
    if promised is None or found.single is None:
        return _open(name, "the manifest has no figure" if promised is None else "only one way to run it was tried")
    runs, promised_runs = max(found.single_tokens // RUN_TOKENS, 1), max(promised.tokens // RUN_TOKENS, 1)
    room = 2 * SAME_TEXT + _share_error(promised.top1_agreement, runs, promised_runs)
    return _bounded(name, promised.top1_agreement, found.single, room, _percent, more_is_better=True)


def parity_of_losses(runtime: str, manifest: Manifest, found: Found) -> Promise:
    """Perplexity on another runtime over that of ONNX Runtime with compiled operators."""
    name, promised, way = f"perplexity on {_NAMES[runtime]}", manifest.parity, found.ways.get(runtime)
    if promised is None or way is None:
        return _open(name, "the manifest has no figure" if promised is None else _untried(runtime, found))
    away = abs(_change(way.losses, way.operators))
    room = SAME_TEXT + DEVIATIONS * _implementations(found)
    return _bounded(name, abs(promised.perplexity_ratio - 1), away, room, _percent)


def _untried(runtime: str, found: Found) -> str:
    return found.missing.get(runtime, "only one way to run it was tried")


def memory(manifest: Manifest, found: Found) -> Promise:
    """Peak memory less that of the empty runtime, on the machine and in the way that it was promised of."""
    figures, now = measurements(manifest), found.memory
    if not figures or now is None:
        return _open("memory", "the manifest has no figure" if not figures else "no memory was measured")
    promised = max(figures, key=lambda figure: (figure.runtime == now.runtime, figure.cpu == now.cpu))
    facts = (
        ("cpu", promised.cpu, now.cpu), ("isa", promised.isa, now.isa), ("threads", promised.threads, now.threads),
        ("runtime", promised.runtime, now.runtime), ("onnxruntime", promised.ort_version, now.ort_version),
        ("operators", promised.native, now.native_library is not None),
    )  # fmt: skip
    for name, before, today in facts:
        if before != today:
            return _open("memory", f"{name} was {before}, is {today}")
    if now.prompt_tokens > promised.prompt_tokens:
        return _open(
            "memory", f"promised of a prompt of {promised.prompt_tokens} tokens, this one has {now.prompt_tokens}"
        )
    before_bytes = promised.rss_peak_bytes - promised.rss_baseline_bytes
    room = max(MEMORY_SHARE * before_bytes, MEMORY_BYTES)
    return _bounded("memory", before_bytes, now.ended.peak_bytes - now.baseline.rss_bytes, room, quantities.bytes_text)


_NAMES: Final = {STOCK: "plain runtime", SLMC_RUN: SLMC_RUN}
PROMISES: Final = (
    size, metric, drop, agreement, partial(parity, STOCK), partial(parity_of_losses, STOCK), partial(parity, SLMC_RUN),
    partial(parity_of_losses, SLMC_RUN), single, memory,
)  # fmt: skip


def _bounded(
    name: str,
    promised: float,
    found: float,
    room: float,
    to_text: Callable[[Any], str],
    *,
    more_is_better: bool = False,
) -> Promise:
    margin = found - promised + room if more_is_better else promised - found + room
    status = KEPT if margin >= 0 else BROKEN  # a figure that is no number breaks it
    sign = "" if not margin < 0 else "-"
    return Promise(
        name=name,
        status=status,
        promised=to_text(promised),
        found=to_text(found),
        tolerance=to_text(room),
        margin=sign + to_text(abs(margin)),
    )


def _open(name: str, why: str) -> Promise:
    return Promise(name=name, status=NOT_COMPARED, promised="", found="", tolerance="", margin="", why=why)


def _percent(share: float) -> str:
    return f"{share:.2%}"


def _perplexity(losses: Array) -> float:
    return math.exp(min(float(losses.mean()), 700.0))


def _change(losses: Array, reference: Array) -> float:
    return math.expm1(min(float((losses - reference).mean()), 700.0))


def _standard_error(difference: Array) -> float:
    """Of the mean of a correlated series [n], by the spread of block means; by its own where that is too short."""
    blocks = difference[: len(difference) // BLOCK * BLOCK].reshape(-1, BLOCK).mean(1)
    values = blocks if len(blocks) > 3 else difference
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 1.0


def _implementations(found: Found) -> float:
    """Standard error of what the ways to run an artifact differ by: rounding, and the spikes that it flips.

    The differences are cut to a tenth of a nat: what is larger is a fault, and no reason to allow for one.
    """
    return max(
        (_standard_error(np.clip(way.losses - way.operators, -0.1, 0.1)) for way in found.ways.values()), default=0.0
    )


def _share_error(share: float, tokens: int, promised_tokens: int) -> float:
    """DEVIATIONS standard errors of a difference of shares; twice the variance, because tokens depend on another."""
    least = 3 / max(promised_tokens, 1)  # none of n seen: up to 3 / n are believable
    spread = max(share * (1 - share), min(least, 0.25))
    return DEVIATIONS * math.sqrt(2 * spread * (1 / tokens + 1 / max(promised_tokens, 1)))
