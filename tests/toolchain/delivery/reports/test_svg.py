"""Scales, ticks and marks against numbers worked out by hand; labels that keep clear of one another."""

from __future__ import annotations

import math
import re

import pytest

from toolchain.delivery.reports import labels, svg


def test_the_log_scale_puts_the_geometric_mean_in_the_middle() -> None:
    scale = svg.log_scale(1e6, 1e8, 50, 250)
    assert scale(1e6) == 50
    assert scale(1e8) == 250
    assert scale(1e7) == pytest.approx(150)


def test_the_symlog_scale_is_asinh_over_the_linear_width() -> None:
    scale = svg.symlog_scale(0.0, 1.0, 400, 0, 0.01)
    assert scale(0.05) == pytest.approx(400 * (1 - math.asinh(5) / math.asinh(100)))
    assert scale(0.0) == 400
    assert scale.clamped(7.0) == scale.clamped(math.nan) == scale.clamped(math.inf) == 0
    assert 400 - scale(0.05) > 0.4 * 400, "0 to 5 % must take a good part of an axis that reaches 100 %"


def test_ticks() -> None:
    assert svg.log_ticks(0.06, 0.35) == [0.07, 0.1, 0.15, 0.2, 0.3]
    assert svg.even_ticks(0.0, 0.005) == [0.0, 0.001, 0.002, 0.003, 0.004, 0.005]
    assert svg.symlog_ticks(-0.001, 0.06) == [0.0, 0.005, 0.01, 0.02, 0.05]
    assert svg.symlog_ticks(-0.006, 0.002) == [-0.006, -0.004, -0.002, 0.0, 0.002]


def test_thinned_ticks_keep_zero_and_their_distance() -> None:
    scale = svg.linear_scale(-10, 10, 0, 20)
    kept = svg.thinned([-10.0, -3.0, 0.0, 3.0, 10.0], scale, 5)
    assert kept == [-10.0, 0.0, 10.0]


@pytest.mark.parametrize("shape", [*svg.SHAPES, "star"])
def test_a_mark_is_a_closed_path_around_its_centre(shape: str) -> None:
    path = svg.mark_path(shape, 100, 50, 5)
    assert path.startswith("M") and path.endswith("Z")
    if shape != "circle":
        numbers = [float(n) for n in re.findall(r"-?[\d.]+", path)]
        assert all(90 <= x <= 110 for x in numbers[::2])
        assert all(40 <= y <= 60 for y in numbers[1::2])


def test_attributes_are_rounded_and_never_minus_zero() -> None:
    assert [svg.attribute(v) for v in (1.0, 0.125, -0.001, 100.0, 33.333)] == ["1", "0.12", "0", "100", "33.33"]


def test_text_and_tooltips_come_out_escaped() -> None:
    picture = svg.canvas(10, 10, "x", '"><script>')
    svg.add_text(picture, "tick", "<b>&", 1, 2)
    svg.add(picture, "rect", "cell", tip="</title><script>")
    text = svg.to_text(picture)
    assert "<script>" not in text and "<b>" not in text
    assert "&lt;b&gt;&amp;" in text


BOUNDS = labels.Box(0, 0, 200, 100)


def test_a_lone_label_stands_to_the_right_of_its_mark() -> None:
    (label,) = labels.place([labels.Wanted("int8", 50, 50, 8)], [], BOUNDS, 12)
    assert (label.text, label.x) == ("int8", 58)


def test_at_the_right_edge_it_stands_to_the_left() -> None:
    (label,) = labels.place([labels.Wanted("int8", 195, 50, 8)], [], BOUNDS, 12)
    assert label.x == pytest.approx(195 - 8 - 4 * 12 * labels.WIDTH_PER_LETTER)


def test_it_gives_way_to_a_mark() -> None:
    (label,) = labels.place([labels.Wanted("int8", 100, 50, 8)], [labels.box_around(115, 50, 5)], BOUNDS, 12)
    assert label.x < 100


def test_labels_never_overlap_and_what_has_no_room_is_left_out() -> None:
    wanted = [labels.Wanted(f"label{i}", 100, 50, 8) for i in range(30)]
    placed = labels.place(wanted, [], BOUNDS, 12)
    boxes = [labels.Box(p.x, p.y - 9, p.x + len(p.text) * 12 * 0.58, p.y + 2) for p in placed]
    assert 2 <= len(placed) < 30
    assert placed[0].text == "label0"
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
