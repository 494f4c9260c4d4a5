"""The table of reports walked: every kind renders both fixtures; Markdown stays a table whatever the names are."""

from __future__ import annotations

import json
import re

import pytest

from exporters.artifact.errors import SlmcError
from toolchain.delivery.reports.catalog import REPORTS, render
from toolchain.delivery.reports.data import Report, report_from_json
from toolchain.delivery.reports.markdown import escaped, render_markdown


@pytest.mark.parametrize("kind", REPORTS)
@pytest.mark.parametrize("name", ["report", "edge"])
def test_every_kind_renders(kind: str, name: str, request: pytest.FixtureRequest) -> None:
    given: Report = request.getfixturevalue(name)
    suffix, renderer = REPORTS[kind]
    text = render(given, kind)
    assert suffix.startswith(".") and text.endswith("\n")
    assert text == renderer(given)
    assert "<script>" not in text or kind == "json"


def test_suffixes_are_distinct() -> None:
    assert len({suffix for suffix, _ in REPORTS.values()}) == len(REPORTS)


def test_an_unknown_kind_says_what_there_is(report: Report) -> None:
    with pytest.raises(SlmcError, match=r"unknown kind of report 'pdf'; choose one of html, md, json"):
        render(report, "pdf")


def test_json_is_read_back_whole(report: Report) -> None:
    assert report_from_json(json.loads(render(report, "json"))) == report


def test_markdown_holds_verdict_figures_constraints_and_formats(report: Report) -> None:
    text = render_markdown(report)
    assert "latency p50 is 5.84 ms, 0.840 ms (16.8 %) over the limit of 5.00 ms." in text
    assert "| Memory, peak | 6.30 MB | peak 31.4 MB less the empty runtime | measured |" in text
    assert "| latency p50 | 5.00 ms | 5.84 ms | 0.840 ms (16.8 %) over | NO |" in text
    assert re.search(r"\| head \| int4-g64 \| 4\.19 MB \| \d+ kB \| \d+\.\d % \|", text)


@pytest.mark.parametrize("name", ["report", "edge"])
def test_markdown_tables_keep_their_columns(name: str, request: pytest.FixtureRequest) -> None:
    text = render_markdown(request.getfixturevalue(name))
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a|b", r"a\|b"), ("<b>", r"\<b\>"), ("x\ny\x00z", "x y z"), ("- a", r"\- a"), ("1. a", r"1\. a"),
     ("31.4 MB", "31.4 MB"), ("@all", r"\@all"), ("[a](b)", r"\[a\](b)"), ("\\|", r"\\\|"), ("int4-g64", "int4-g64")],
)  # fmt: skip
def test_nothing_acts_as_markdown(text: str, expected: str) -> None:
    assert escaped(text) == expected
