"""The kinds of report by name: the suffix of the file and what writes its text."""

from __future__ import annotations

from collections.abc import Callable

from exporters.artifact.errors import SlmcError
from toolchain.delivery.reports.data import Report
from toolchain.delivery.reports.html import render_html
from toolchain.delivery.reports.markdown import render_markdown

REPORTS: dict[str, tuple[str, Callable[[Report], str]]] = {
    "html": (".html", render_html),
    "md": (".md", render_markdown),
    "json": (".json", Report.to_json),
}


def render(report: Report, kind: str) -> str:
    """The text of a report of this kind.

    Raises:
        SlmcError: no such kind; the text says which there are.
    """
    if kind not in REPORTS:
        raise SlmcError(f"unknown kind of report {kind!r}; choose one of {', '.join(REPORTS)}")
    return REPORTS[kind][1](report)
