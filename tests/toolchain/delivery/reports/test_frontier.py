"""The frontier picture: a mark for every candidate where the scale says, the line, the limits, the feasible corner."""

from __future__ import annotations

import dataclasses
import math
from xml.etree import ElementTree as ET

import pytest

from toolchain.delivery.reports import frontier
from toolchain.delivery.reports.data import Report
from toolchain.search.outcome import TriedCandidate


def classed(picture: ET.Element, kind: str) -> list[ET.Element]:
    return [element for element in picture.iter() if kind in element.get("class", "").split()]


def small(report: Report, **changes: object) -> Report:
    """fp32 of 10 MB without states; candidates of 1 MB at 10 % and of 4 MB at 0 %, the latter chosen."""
    sizes = dataclasses.replace(report.manifest.bytes, weights_fp32=10_000_000, states=0)
    points = (
        TriedCandidate(1_000_000, 0.10, 0.12, 0.05, "global", "every layer in int2-g64", True, False),
        TriedCandidate(4_000_000, 0.0, 0.01, 0.0, "module", "knapsack", True, True),
    )
    values = {"manifest": dataclasses.replace(report.manifest, bytes=sizes), "points": points,
              "max_bytes": 2_000_000, "max_drop": 0.01} | changes  # fmt: skip
    return dataclasses.replace(report, **values)


def test_one_mark_and_tooltip_per_candidate(report: Report) -> None:
    picture = frontier.draw(report, 900, 480)
    marks = classed(picture, "mark")
    assert len(marks) == len(report.points) == 60
    assert all(mark.findtext("title") for mark in marks)
    assert len(classed(picture, "winner")) == 1
    assert len(classed(picture, "on-frontier")) == sum(p.on_frontier for p in report.points)


def test_known_points_are_where_the_scale_says(report: Report) -> None:
    frame = frontier.frame_for(small(report), 900, 480)
    # x: log from 0.9 MB to 4.48 MB over 50..886; y: asinh(drop / 1 %) from 0 to 10 % over 414..28
    left = 50 + 836 * math.log(1 / 0.9) / math.log(4.48 / 0.9)
    right = 50 + 836 * math.log(4 / 0.9) / math.log(4.48 / 0.9)
    assert frame.place(small(report).points[0]) == pytest.approx((left, 28))
    assert frame.place(small(report).points[1]) == pytest.approx((right, 414))
    assert frame.y(0.01) == pytest.approx(414 - 386 * math.asinh(1) / math.asinh(10))


def test_the_line_steps_and_the_limits_bound_the_shade(report: Report) -> None:
    given = small(report)
    picture, frame = frontier.draw(given, 900, 480), frontier.frame_for(given, 900, 480)
    (line,) = classed(picture, "frontier-line")
    (x0, y0), (x1, y1) = (frame.place(p) for p in given.points)
    assert line.get("d") == f"M{x0:.2f} {y0:g}L{x1:.2f} {y0:g}L{x1:.2f} {y1:g}"
    (shade,) = classed(picture, "feasible")
    assert float(shade.get("x", "")) == frame.left
    assert float(shade.get("width", "")) == pytest.approx(frame.x(2_000_000) - frame.left, abs=0.01)
    assert float(shade.get("y", "")) == pytest.approx(frame.y(0.01), abs=0.01)
    assert len(classed(picture, "limit")) == 2
    assert {t.text for t in classed(picture, "limit-label")} == {"at most 2.00 MB", "at most 1.00 %"}


def test_without_limits_there_is_neither_line_nor_shade(report: Report) -> None:
    picture = frontier.draw(small(report, max_bytes=None, max_drop=None), 900, 480)
    assert not classed(picture, "limit") and not classed(picture, "feasible")


def test_a_limit_far_away_does_not_squeeze_the_picture(report: Report) -> None:
    generous = frontier.draw(small(report, max_bytes=10**9), 900, 480)
    assert len(classed(generous, "limit")) == 1
    assert float(classed(generous, "feasible")[0].get("width", "")) == 886 - 50
    assert not classed(frontier.draw(small(report, max_bytes=1000), 900, 480), "feasible")


def test_uniform_candidates_bear_their_format_and_the_winner_its_name(report: Report) -> None:
    texts = {t.text for t in classed(frontier.draw(report, 900, 480), "name")}
    assert {"chosen", "fp16", "int8", "int6-g64", "int3-g64", "int2-g64"} <= texts
    assert texts <= {"chosen", "fp16", "int8", "int6-g64", "int5-g64", "int4-g64", "int3-g64", "int2-g64"}


@pytest.mark.parametrize(
    ("why", "label"),
    [
        ("every layer in int4-g64", "int4-g64"),
        ("uniform 4:8x16/int4-g64, rounding", "4:8x16/int4-g64"),
        ("1:8/int8+6:8/fp4-g16", "1:8/int8+6:8/fp4-g16"),
        ("uint2-g32 everywhere", "uint2-g32"),
        ("printing an assignment of sorts", "printing an assi"),
    ],
)
def test_the_format_in_a_reason(why: str, label: str) -> None:
    assert frontier.uniform_label(TriedCandidate(1, 0.0, 0.0, 0.0, "global", why, False, False)) == label


@pytest.mark.parametrize("drop", [1.5, math.inf, math.nan])
def test_a_ruined_candidate_stands_at_the_upper_edge_and_is_counted(report: Report, drop: float) -> None:
    given = small(report)
    ruined = dataclasses.replace(given.points[0], drop=drop)
    given = dataclasses.replace(given, points=(ruined, given.points[1]))
    frame = frontier.frame_for(given, 900, 480)
    assert frontier.clipped(given) == 1
    assert frame.y.high == frontier.CLIP_DROP
    assert frame.place(ruined)[1] == pytest.approx(28)


def test_tiers_differ_in_shape_and_colour(report: Report) -> None:
    order = frontier.tiers(report)
    assert order == {"global": 0, "block": 1, "module": 2}
    assert len({frontier.shape_of(i) for i in order.values()}) == 3


def test_every_coordinate_is_finite_for_a_single_candidate(edge: Report) -> None:
    text = ET.tostring(frontier.draw(edge, 400, 440), encoding="unicode")
    assert "nan" not in text and "inf" not in text
