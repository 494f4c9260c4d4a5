"""A study as tables: every cell, the goals and whether they are met, and sparse formats beside dense ones as large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from targets.device import quantities
from toolchain.delivery.reports.markdown import table
from toolchain.study.cells import GOALS, PRUNED
from toolchain.study.results import Result

SHORT = (0, 1, 2, 3, 6, 8, 10, 13)
"""The columns that fit a terminal."""

COLUMNS = ("format", "method", "perplexity", "drop", "+-", "bits/byte", "KL", "top-1", "layer error", "bytes",
           "bits/weight", "ideal", "throughput", "seconds")  # fmt: skip

NOTE = (
    "drop: rise of the perplexity over that of the fp32 model; +-: its standard error; layer error: mean over layers "
    "of the squared error of the outputs beside their size; bytes: of the compressed layers as stored; bits/weight: as "
    "stored, everything counted; ideal: with the best possible index, float16 scales counted; throughput: products "
    "beside dense 16-bit ones on hardware that skips zeros, by formula; seconds: CPU time without evaluation. "
    "dual inputs: inputs rounded to 8 bits for outliers and to four-bit floats for inliers, which the throughput of a "
    "decomposed format presumes; the layer error is that of the weights alone. "
    f"Rows N:M/{PRUNED} are pruned and not rounded: no format stores them as yet, so their bytes are those of dense "
    "float16, their bits/weight those of N:M patterns with float16 values."
)


def cells(result: Result) -> tuple[str, ...]:
    """A result as a row of the table."""
    return (
        result.format, result.method, f"{result.perplexity:.2f}", quantities.signed_percent(result.relative_drop),
        quantities.percent(result.standard_error), f"{result.bits_per_byte:.4f}", f"{result.kl_mean:.4f}",
        quantities.percent(result.top1_agreement), f"{result.layer_error:.4f}", str(result.bytes),
        f"{result.bits_per_weight:.2f}", f"{result.ideal_bits:.2f}", f"{result.throughput:.2f}x",
        f"{result.seconds:.0f}" if result.seconds >= 10 else f"{result.seconds:.1f}",
    )  # fmt: skip


@dataclass(frozen=True)
class GoalOutcome:
    """A goal and its outcome. allowed: the drop that ours may have; rival: that of the rival, None without one."""

    format: str
    ours: float
    rival: str | None
    rival_drop: float | None
    allowed: float

    @property
    def met(self) -> bool:
        return self.ours <= self.allowed


def goal_outcomes(results: Sequence[Result]) -> list[GoalOutcome]:
    """The outcome of every goal whose results are known."""
    drops = {(r.format, r.method): r.relative_drop for r in results}
    found = []
    for goal in GOALS:
        ours, rival = drops.get((goal.format, "ours")), drops.get((goal.format, goal.rival or ""))
        if ours is None or (goal.rival and rival is None):
            continue
        allowed = goal.share if rival is None else goal.share * rival
        found.append(GoalOutcome(format=goal.format, ours=ours, rival=goal.rival, rival_drop=rival, allowed=allowed))
    return found


@dataclass(frozen=True)
class Pair:
    """A joint sparse format beside the best dense result that takes at most `SLACK` more bytes, same method family."""

    sparse: Result
    dense: Result


SLACK = 0.01
"""Formats whose sizes differ by less than this share count as of equal size."""


def equal_bytes(results: Sequence[Result]) -> list[Pair]:
    """Every result of an N:M format with integers beside the best dense one of no more bytes, tuned beside tuned."""
    dense = [r for r in results if ":" not in r.format]
    pairs = []
    for sparse in (r for r in results if ":" in r.format and not r.format.endswith(f"/{PRUNED}")):
        fair = [d for d in dense if d.bytes <= sparse.bytes * (1 + SLACK) and (d.method == "ours") == _ours(sparse)]
        if fair:
            pairs.append(Pair(sparse, min(fair, key=lambda d: d.relative_drop)))
    return pairs


def _ours(result: Result) -> bool:
    return result.method == "ours"


def render(results: Sequence[Result], title: str) -> str:
    """The whole study as Markdown."""
    parts = [f"# {title}", table(COLUMNS, map(cells, results)), NOTE]
    found = goal_outcomes(results)
    if found:
        compared = [
            (v.format, quantities.signed_percent(v.ours), v.rival or "", "" if v.rival_drop is None
             else quantities.signed_percent(v.rival_drop), quantities.percent(v.allowed), "yes" if v.met else "NO")
            for v in found
        ]  # fmt: skip
        head = ("format", "ours", "rival", "its drop", "allowed", "met")
        parts += ["## Goals", table(head, compared)]
    pairs = equal_bytes(results)
    if pairs:
        beside = [
            (p.sparse.format, p.sparse.method, str(p.sparse.bytes), quantities.signed_percent(p.sparse.relative_drop),
             f"{p.dense.format} {p.dense.method}", str(p.dense.bytes), quantities.signed_percent(p.dense.relative_drop))
            for p in pairs
        ]  # fmt: skip
        columns = ("sparse", "method", "bytes", "drop", "best dense of no more bytes", "its bytes", "its drop")
        parts += ["## Sparse beside dense at equal bytes", table(columns, beside)]
    return "\n\n".join(parts) + "\n"
