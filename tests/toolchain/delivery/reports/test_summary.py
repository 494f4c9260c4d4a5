"""The verdict, the tiles and the margins in words."""

from __future__ import annotations

import dataclasses

import pytest

from exporters.artifact.manifest import Constraint
from toolchain.delivery.reports import summary, tables
from toolchain.delivery.reports.data import Report


def with_quality(report: Report, **changes: object) -> Report:
    quality = dataclasses.replace(report.manifest.quality, **changes)
    return dataclasses.replace(report, manifest=dataclasses.replace(report.manifest, quality=quality))


def with_constraints(report: Report, *constraints: Constraint) -> Report:
    return dataclasses.replace(report, manifest=dataclasses.replace(report.manifest, constraints=constraints))


def test_the_verdict_says_what_how_much_what_was_lost_and_what_failed(report: Report) -> None:
    text = summary.verdict(report)
    assert text.startswith("spikegpt-stories-7m (spikegpt, 7.21 M parameters) was compressed to ")
    assert "its perplexity rises by 0.75 %, from 11.84 to 11.93" in text
    assert text.endswith(
        "1 of 3 constraints is not met: latency p50 is 5.84 ms, 0.840 ms (16.8 %) over the limit of 5.00 ms."
    )


def test_the_verdict_when_all_holds_one_holds_or_none_was_asked(report: Report) -> None:
    met = Constraint("relative drop", 0.01, 0.008, "relative", True)
    assert summary.verdict(with_constraints(report, met, met)).endswith("; all 2 constraints hold.")
    assert summary.verdict(with_constraints(report, met)).endswith("; the one constraint holds.")
    assert summary.verdict(with_constraints(report)).endswith("; no constraint was given.")


def test_the_verdict_follows_the_metric(report: Report) -> None:
    falls = with_quality(report, metric="accuracy", reference=0.8, compressed=0.79, relative_drop=0.0125)
    assert "its accuracy falls by 1.25 %, from 0.8000 to 0.7900" in summary.verdict(falls)
    better = with_quality(report, compressed=11.8, relative_drop=-0.003547)
    assert "its perplexity falls by 0.35 %" in summary.verdict(better)
    same = with_quality(report, compressed=11.842, relative_drop=0.0)
    assert "its perplexity is unchanged at 11.84" in summary.verdict(same)


def test_numbers_that_would_read_alike_get_more_digits(report: Report) -> None:
    close = with_quality(report, reference=11.842, compressed=11.84213, relative_drop=1.1e-5)
    assert "from 11.8420 to 11.8421" in summary.verdict(close)


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        (Constraint("m", 3_000_000, 2_750_000, "bytes", True), "250 kB (8.33 %) below"),
        (Constraint("m", 5.0, 6.2, "ms", False), "1.20 ms (24.0 %) over"),
        (Constraint("m", 0.01, 0.012, "relative", False), "0.20 percentage points over"),
        (Constraint("m", 5.0, 5.0, "ms", True), "exactly at"),
        (Constraint("m", 5.0, float("inf"), "ms", False), "beyond"),
        (Constraint("m", 0.0, 2.0, "ms", False), "2.00 ms over"),
    ],
)
def test_margins(constraint: Constraint, text: str) -> None:
    assert summary.margin(constraint) == text


def test_six_tiles_and_what_they_rest_on(report: Report, edge: Report) -> None:
    assert {figure.basis for figure in summary.figures(report)} == {"measured"}
    values = {figure.name: figure.value for figure in summary.figures(report)}
    assert values["Memory, peak"] == "6.30 MB"
    assert values["Per token, p50"] == "5.84 ms"
    assert values["Perplexity"] == "11.84 → 11.93"
    dry = ["estimated", "estimated", "not measured", "not measured", "not measured", "estimated"]
    assert [figure.basis for figure in summary.figures(edge)] == dry


def test_without_any_candidate_nothing_is_estimated(edge: Report) -> None:
    empty = dataclasses.replace(edge, points=())
    assert "what it lost was not measured" in summary.verdict(empty)
    assert [figure.basis for figure in summary.figures(empty)][1:] == ["not measured"] * 5


def test_tables_of_a_dry_artifact_are_empty(edge: Report) -> None:
    rows = {table.name: table.rows for table in tables.tables(edge)}
    assert rows["Quality"] == rows["Parity"] == rows["Latency and speed"] == ()
    assert ("resident memory", "not measured") in rows["Memory"]
