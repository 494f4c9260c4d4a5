"""The report in short, as Markdown: for a pull request, a CI summary, a mail."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from targets.device import quantities
from toolchain.delivery.reports import activity, grouping, summary, tables
from toolchain.delivery.reports.data import Report

_SPECIAL = re.compile(r"([\\`*_\[\]#!|~<>&$@]|^[-+=])")
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")
_BREAKS = re.compile(r"[\s\x00-\x1f\x7f\ud800-\udfff]+")


def render_markdown(report: Report) -> str:
    """Verdict, figures, constraints, the formats of every block, who sees spikes, and what sparse formats gave."""
    figures = [(f.name, f.value, f.note, f.basis) for f in summary.figures(report)]
    parts = [
        f"# {escaped(summary.title(report))}",
        escaped(summary.verdict(report)),
        "## Figures",
        table(("figure", "value", "", "basis"), figures),
        "## Constraints",
        _constraints(report),
        "## Formats by block",
        table(("block", "formats", "fp32", "stored", "share"), [_block(row) for row in grouping.block_rows(report)]),
    ]
    if spikes := activity.rows(report):
        parts += ["## Spikes and zeros", escaped(activity.text(report)), table(activity.HEAD, spikes)]
    if report.families:
        rows = [tables.family_cells(row, report) for row in report.families]
        parts += ["## Sparse and dense formats compared", table(tables.FAMILY_HEAD, rows), escaped(report.screening)]
    if report.transformations:
        rows = [tables.transformation_cells(row) for row in report.transformations]
        parts += ["## Transformations", table(tables.TRANSFORMATION_HEAD, rows)]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """A name or sentence on one line, in which nothing acts as Markdown or HTML."""
    line = _BREAKS.sub(" ", text).strip()
    return _NUMBERED.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", line))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A pipe table; cells come out escaped."""
    lines = [tuple(head), ("---",) * len(head)]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join(text + ["| " + " | ".join(map(escaped, row)) + " |" for row in rows])


def _constraints(report: Report) -> str:
    rows = summary.constraint_rows(report)
    if not rows:
        return "None was given."
    cells = [(r.name, r.limit, r.actual, r.margin, "yes" if r.met else "NO") for r in rows]
    return table(("constraint", "limit", "actual", "margin", "met"), cells)


def _block(row: grouping.BlockRow) -> tuple[str, ...]:
    share = quantities.percent(row.bytes / row.bytes_fp32) if row.bytes_fp32 else ""
    return row.name, row.formats, quantities.bytes_text(row.bytes_fp32), quantities.bytes_text(row.bytes), share
