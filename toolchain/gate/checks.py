"""Regression checks: one per figure, which compares the baseline's value with today's and says why it fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from exporters.artifact.errors import SlmcError
from targets.device import quantities
from targets.device.clock import median
from targets.measure.paired import compare
from toolchain.gate.values import Figures, Machine, Speed

PASSED, FAILED, NOT_COMPARABLE = "passed", "failed", "not comparable"
_LEAST_MEMORY_BYTES: Final = 256 * 1024
_LAYERS_NAMED: Final = 3


@dataclass(frozen=True)
class Tolerances:
    """How much worse a figure may be: shares of the baseline's; agreement in shares of all tokens."""

    size: float = 0.001
    perplexity: float = 0.005
    accuracy: float = 0.005
    agreement: float = 0.005
    memory: float = 0.05
    latency: float = 0.07


@dataclass(frozen=True)
class Check:
    """One verdict. value, unit: today's figure for a chart; None where there is none."""

    name: str
    status: str
    before: str
    now: str
    why: str
    value: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class Compared:
    """What a check looks at. again: measures speed a second time, to confirm."""

    before: Figures
    now: Figures
    tolerances: Tolerances
    again: Callable[[], Speed]


def parse_tolerances(texts: tuple[str, ...]) -> Tolerances:
    """Tolerances of NAME=SHARE texts, as 'latency=10%'.

    Raises:
        SlmcError: another form, or no such name.
    """
    names = [field.name for field in dataclasses.fields(Tolerances)]
    changed = {}
    for text in texts:
        name, equals, share = text.partition("=")
        if not equals or name not in names:
            raise SlmcError(f"--tolerance {text!r}: expected NAME=SHARE, as latency=10%; names are {', '.join(names)}")
        changed[name] = quantities.parse_share(share, f"--tolerance {name}")
    return dataclasses.replace(Tolerances(), **changed)


def run_checks(compared: Compared) -> tuple[Check, ...]:
    """Every check of the table."""
    return tuple(check(compared) for check in CHECKS)


def check_size(c: Compared) -> Check:
    """The two model files as they lie there; less is never wrong."""
    before, now = c.before.sizes.file, c.now.sizes.file
    worse = now > before * (1 + c.tolerances.size)
    why = f"may grow by {c.tolerances.size:.1%}" + (f", grew by {now / before - 1:.1%}" if worse else "")
    return _check("size", worse, quantities.bytes_text(before), quantities.bytes_text(now), why, now, "bytes")


def check_layers(c: Compared) -> Check:
    """Format and bytes of every layer: a change here is a decision, and belongs into the baseline."""
    before, now = c.before.layers, c.now.layers
    changed = []
    for path in sorted(before.keys() | now.keys()):
        old, new = before.get(path), now.get(path)
        if old != new:
            changed.append(f"{path}: {_layer(old)} -> {_layer(new)}")
    more = f" and {len(changed) - _LAYERS_NAMED} more" if len(changed) > _LAYERS_NAMED else ""
    why = "; ".join(changed[:_LAYERS_NAMED]) + more if changed else "format and bytes of each are the same"
    return _check(
        "layers", bool(changed), f"{len(before)} layers", f"{len(changed)} changed", why, len(changed), "layers"
    )


def _layer(size: object) -> str:
    return "none" if size is None else " ".join(str(v) for v in dataclasses.astuple(size)) + " bytes"  # type: ignore[call-overload]


def check_quality(c: Compared) -> Check:
    """Perplexity; of a classifier, accuracy."""
    was, found = c.before.predictions.accuracy, c.now.predictions.accuracy
    if was is not None and found is not None:
        why = f"{found / max(was, 1e-9) - 1:+.2%}, may fall by {c.tolerances.accuracy:.1%}"
        worse = not found >= was * (1 - c.tolerances.accuracy)
        return _check("accuracy", worse, f"{was:.2%}", f"{found:.2%}", why, 100 * found, "%")
    before, now = c.before.predictions.perplexity, c.now.predictions.perplexity
    limit = before * (1 + c.tolerances.perplexity)
    why = f"{now / before - 1:+.2%}, may rise by {c.tolerances.perplexity:.1%}"
    return _check("perplexity", not now <= limit, f"{before:.3f}", f"{now:.3f}", why, now, "perplexity")


def check_top1(c: Compared) -> Check:
    """Share of the text's tokens where the best guess is the reference's."""
    return _agreement(c, "top-1 agreement", c.before.predictions.top1_agreement, c.now.predictions.top1_agreement)


def check_single(c: Compared) -> Check:
    """One call over a text, and token by token."""
    before, now = c.before.predictions.token_by_token_top1, c.now.predictions.token_by_token_top1
    if before is None or now is None:
        return _incomparable("parity token by token", "nothing was read token by token: texts come in one call")
    return _agreement(c, "parity token by token", before, now)


def check_stock(c: Compared) -> Check:
    """The compiled operators, and the functions on plain ONNX Runtime."""
    name, before, now = "parity with plain runtime", c.before.predictions, c.now.predictions
    if before.stock_runtime_top1 is None or now.stock_runtime_top1 is None:
        return _incomparable(name, "no compiled operators ran, with which it could be compared")
    return _agreement(c, name, before.stock_runtime_top1, now.stock_runtime_top1)


def _agreement(c: Compared, name: str, before: float, now: float) -> Check:
    why = f"{now - before:+.2%} of all tokens, may fall by {c.tolerances.agreement:.1%}"
    return _check(name, not now >= before - c.tolerances.agreement, f"{before:.2%}", f"{now:.2%}", why, 100 * now, "%")


def check_memory(c: Compared) -> Check:
    """Median peak memory less the empty runtime; the tolerance is at least three times what processes differ by."""
    if other := _difference(c.before.machine, c.now.machine):
        return _incomparable("memory", other)
    before, now = median(c.before.model_memory_bytes), median(c.now.model_memory_bytes)
    spread = max(max(x.model_memory_bytes) - min(x.model_memory_bytes) for x in (c.before, c.now))
    room = max(c.tolerances.memory * before, 3 * spread, _LEAST_MEMORY_BYTES)
    why = f"{quantities.bytes_text(now - before)} more, may grow by {quantities.bytes_text(room)}"
    return _check(
        "memory", now > before + room, quantities.bytes_text(before), quantities.bytes_text(now), why, now, "bytes"
    )


def check_latency(c: Compared) -> Check:
    """CPU time per token relative to the reference work; fails if two 95 % intervals lie above the limit."""
    if other := _difference(c.before.machine, c.now.machine):
        return _incomparable("latency", other)
    before = c.before.speed.normalised
    found = compare(c.now.speed.normalised, before)
    now = c.now.speed
    if worse := found.slower_than(c.tolerances.latency):
        now = c.again()
        found = compare(now.normalised, before)
        worse = found.slower_than(c.tolerances.latency)
        second = ", confirmed by a second measurement" if worse else ", not confirmed by a second measurement"
    else:
        second = ""
    why = (
        f"{found.ratio - 1:+.1%} normalised CPU time ({found.low - 1:+.1%} to {found.high - 1:+.1%}), "
        f"may rise by {c.tolerances.latency:.0%}{second}"
    )
    old, new = median(c.before.speed.token_cpu_ms), median(now.token_cpu_ms)
    return _check("latency", worse, f"{old:.3f} ms", f"{new:.3f} ms", why, new, "ms")


CHECKS: Final = (
    check_size, check_layers, check_quality, check_top1, check_single, check_stock, check_memory, check_latency,
)  # fmt: skip


def _difference(before: Machine, now: Machine) -> str:
    """The first fact in which two machines differ; empty if there is none."""
    for field in dataclasses.fields(Machine):
        old, new = getattr(before, field.name), getattr(now, field.name)
        if old != new:
            return f"{field.name} was {old}, is {new}"
    return ""


def _incomparable(name: str, why: str) -> Check:
    return Check(name=name, status=NOT_COMPARABLE, before="", now="", why=why)


def _check(name: str, worse: bool, before: str, now: str, why: str, value: float, unit: str) -> Check:
    return Check(name=name, status=FAILED if worse else PASSED, before=before, now=now, why=why, value=value, unit=unit)
