"""The top of a report: the verdict in one sentence, the figures, and the margins of the constraints."""

from __future__ import annotations

import math
from dataclasses import dataclass

from exporters.artifact.manifest import Constraint, Quality
from targets.device import quantities
from toolchain.delivery.reports.data import Report
from toolchain.search.outcome import TriedCandidate

NOTHING = "\u2013"
"""The value of a tile that has none."""

MEASURED, ESTIMATED, MISSING = "measured", "estimated", "not measured"


@dataclass(frozen=True)
class Figure:
    """One tile: a name, the value, what it was or is made of, and whether it was measured."""

    name: str
    value: str
    note: str
    basis: str


@dataclass(frozen=True)
class ConstraintRow:
    name: str
    limit: str
    actual: str
    margin: str
    met: bool


def winner_of(report: Report) -> TriedCandidate | None:
    return next((point for point in report.points if point.winner), None)


def title(report: Report) -> str:
    return f"{report.manifest.source.path_name}, compressed"


def verdict(report: Report) -> str:
    """One sentence: what was compressed, by how much, what it lost, and what of the constraints holds."""
    manifest = report.manifest
    source, sizes = manifest.source, manifest.bytes
    share = f"{quantities.percent(sizes.weights / sizes.weights_fp32)} of its fp32 size, " if sizes.weights_fp32 else ""
    what = (
        f"{source.path_name} ({source.family}, {quantities.count_text(source.params)} parameters) was compressed to "
        f"{share}from {quantities.bytes_text(sizes.weights_fp32)} to {quantities.bytes_text(sizes.weights)} of weights"
    )
    return f"{what}; {_loss(report)}; {_constraints(manifest.constraints)}."


def _loss(report: Report) -> str:
    quality, winner = report.manifest.quality, winner_of(report)
    if quality is None and winner is None:
        return "what it lost was not measured"
    if quality is None:
        assert winner is not None
        return f"the search estimates a loss of {quantities.percent(winner.drop)}, not measured on the artifact"
    if quality.compressed == quality.reference:
        return f"its {quality.metric} is unchanged at {quantities.significant(quality.compressed, 4)}"
    before, after = _pair(quality.reference, quality.compressed)
    verb = "rises" if quality.compressed > quality.reference else "falls"
    change = quantities.percent(abs(quality.relative_drop))
    return f"its {quality.metric} {verb} by {change}, from {before} to {after}"


def _pair(before: float, after: float) -> tuple[str, str]:
    """Two numbers with as many digits, at least four, as it takes to tell them apart."""
    for digits in range(4, 8):
        texts = quantities.significant(before, digits), quantities.significant(after, digits)
        if texts[0] != texts[1]:
            return texts
    return texts


def _constraints(constraints: tuple[Constraint, ...]) -> str:
    failed = [c for c in constraints if not c.met]
    if not constraints:
        return "no constraint was given"
    if not failed:
        return "the one constraint holds" if len(constraints) == 1 else f"all {len(constraints)} constraints hold"
    told = ", and ".join(_failure(c) for c in failed)
    return f"{len(failed)} of {len(constraints)} constraints {'is' if len(failed) == 1 else 'are'} not met: {told}"


def _failure(constraint: Constraint) -> str:
    limit = quantities.quantity(constraint.limit, constraint.unit)
    actual = quantities.quantity(constraint.actual, constraint.unit)
    return f"{constraint.name} is {actual}, {margin(constraint)} the limit of {limit}"


def margin(constraint: Constraint) -> str:
    """How far from its limit: "250 kB (8.33 %) below"."""
    away = constraint.actual - constraint.limit
    if not math.isfinite(away):
        return "beyond"
    if away == 0:
        return "exactly at"
    side = "over" if away > 0 else "below"
    if quantities.is_share(constraint.unit):
        points = quantities.quantity(abs(away), constraint.unit).removesuffix(" %")
        return f"{points} percentage points {side}"
    relative = f" ({quantities.percent(abs(away / constraint.limit))})" if constraint.limit else ""
    return f"{quantities.quantity(abs(away), constraint.unit)}{relative} {side}"


def constraint_rows(report: Report) -> list[ConstraintRow]:
    return [
        ConstraintRow(
            name=c.name,
            limit=quantities.quantity(c.limit, c.unit),
            actual=quantities.quantity(c.actual, c.unit),
            margin=margin(c),
            met=c.met,
        )
        for c in report.manifest.constraints
    ]


def figures(report: Report) -> list[Figure]:
    """The six tiles, in the same order for every artifact."""
    return [_weights(report), _metric(report), *_speed(report), _memory(report), _distance(report)]


def _weights(report: Report) -> Figure:
    sizes = report.manifest.bytes
    value = f"{quantities.bytes_text(sizes.weights_fp32)} → {quantities.bytes_text(sizes.weights)}"
    share = (
        f"{quantities.percent(sizes.weights / sizes.weights_fp32)} of fp32" if sizes.weights_fp32 else "no fp32 weights"
    )
    return Figure("Weights", value, share, MEASURED if sizes.file else ESTIMATED)


def _metric(report: Report) -> Figure:
    quality, winner = report.manifest.quality, winner_of(report)
    if quality is not None:
        before, after = _pair(quality.reference, quality.compressed)
        note = f"drop {quantities.signed_percent(quality.relative_drop)}, {_bound(quality)}"
        return Figure(quality.metric.capitalize(), f"{before} → {after}", note, MEASURED)
    if winner is not None:
        note = f"at most {quantities.signed_percent(winner.upper)} (95 %), in the search, not on the artifact"
        return Figure("Drop of the metric", quantities.signed_percent(winner.drop), note, ESTIMATED)
    return Figure("Drop of the metric", NOTHING, "", MISSING)


def _bound(quality: Quality) -> str:
    return f"at most {quantities.signed_percent(quality.relative_drop_upper)} (95 %)"


def _speed(report: Report) -> tuple[Figure, Figure]:
    measured = report.manifest.measured
    if measured is None:
        return Figure("Generation", NOTHING, "", MISSING), Figure("Per token, p50", NOTHING, "", MISSING)
    threads = "1 thread" if measured.threads == 1 else f"{measured.threads} threads"
    tail = f"p99 {quantities.ms(measured.decode_ms.p99)}"
    return (
        Figure("Generation", quantities.rate(measured.decode_tps), f"{threads}, {measured.target}", MEASURED),
        Figure("Per token, p50", quantities.ms(measured.decode_ms.p50), tail, MEASURED),
    )


def _memory(report: Report) -> Figure:
    measured = report.manifest.measured
    if measured is None:
        return Figure("Memory, peak", NOTHING, "", MISSING)
    own = quantities.bytes_text(measured.rss_peak_bytes - measured.rss_baseline_bytes)
    note = f"peak {quantities.bytes_text(measured.rss_peak_bytes)} less the empty runtime"
    return Figure("Memory, peak", own, note, MEASURED)


def _distance(report: Report) -> Figure:
    quality, winner = report.manifest.quality, winner_of(report)
    if quality is not None:
        note = f"KL {quantities.significant(quality.kl_mean)} nats per token to fp32"
        return Figure("Top-1 agreement", quantities.percent(quality.top1_agreement), note, MEASURED)
    if winner is not None:
        note = "nats per token to fp32, in the search"
        return Figure("KL divergence", quantities.significant(winner.kl_mean), note, ESTIMATED)
    return Figure("Top-1 agreement", NOTHING, "", MISSING)
