"""Spikes and zeros of a report, counted by hand."""

from __future__ import annotations

import dataclasses

from exporters.formats.event import PREFIX
from toolchain.delivery.reports import activity
from toolchain.delivery.reports.data import LayerRow, Report


def row(path: str, rows: int, format_name: str, nonzero: float | None, **what: bool) -> LayerRow:
    return LayerRow(path, "blocks.0", rows, 100, format_name, "nearest", 1, 1, "fp32", nonzero, **what)


def test_rates_and_skipped_work(report: Report) -> None:
    """Spikes feed 300 and 100 of 1000 rows' products; of the first, and of 200 more, 90 % and half are skipped."""
    layers = (
        row("emb", 5000, "int8", None),
        row("down", 300, f"{PREFIX}int4-g64", 0.1, spikes=True),
        row("up", 400, "int4-g64", 1.0),
        row("value", 200, f"{PREFIX}int4-g64", 0.5),
        row("counted", 100, "int8", 0.9, counts=True),
    )
    found = dataclasses.replace(report, layers=layers)
    assert activity.rows(found) == [
        ("down", "spikes", "10.0 %", "skips zeros"),
        ("value", "real values", "50.0 %", "skips zeros"),
        ("counted", "numbers of spikes", "90.0 %", "is dense"),
    ]
    assert activity.text(found).startswith(
        "Spikes feed 40.0 % of the products of a token, and 37.0 % of all are skipped"
    )
    assert activity.text(dataclasses.replace(report, layers=layers[:1])) == ""
