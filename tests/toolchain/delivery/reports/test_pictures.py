"""The heat map, the map of formats and the bars: every layer in its place, in its colour, at its length."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from toolchain.delivery.reports import bars, grouping, heatmap, layermap
from toolchain.delivery.reports.data import LayerRow, Report
from toolchain.delivery.reports.palette import BIT_LEVELS, HEAT_CLASSES, Heat, bit_level, bits_per_weight, heat_for
from toolchain.search.outcome import LayerLoss


def classed(picture: ET.Element, kind: str) -> list[ET.Element]:
    return [element for element in picture.iter() if kind in element.get("class", "").split()]


@pytest.mark.parametrize(
    ("bits", "level"),
    [(32.0, 32), (16.0, 16), (8.03, 8), (6.25, 6), (4.5, 4), (2.3, 2), (1.03, 1), (0.8, 1), (0.0, 1), (7.9, 6)],
)
def test_levels_of_bits(bits: float, level: int) -> None:
    assert bit_level(bits) == level
    assert level in BIT_LEVELS


def test_heat_has_two_classes_per_decade_over_six_decades() -> None:
    heat = Heat(-6, 0)
    assert [heat.class_of(v) for v in (1e-6, 2e-6, 4e-6, 1.1e-5, 0.5, 1.0)] == [0, 0, 1, 2, 11, 11]
    assert [heat.class_of(v) for v in (0.0, -1.0, 1e-9, math.inf, math.nan)] == [0, 0, 0, 11, 11]
    assert heat.decades()[0] == (-6, "10⁻⁶")


def test_the_heat_spans_the_values_in_whole_decades_and_at_most_six() -> None:
    assert heat_for([0.003, 0.2]) == Heat(-3, 0)
    assert heat_for([1e-12, 0.2]) == Heat(-6, 0)
    assert heat_for([0.1]) == Heat(-2, -1)
    assert heat_for([0.0, math.nan]) == Heat(-6, 0)


def test_a_cell_for_every_layer_and_format_in_model_order(report: Report) -> None:
    picture = heatmap.draw(report.layers, report.sensitivities)
    cells = classed(picture, "cell")
    assert len(cells) == 44 * 7
    assert len(classed(picture, "mine")) == 43, "the embedding's sign was not among the searched formats"
    first, last = (c.findtext("title") or "" for c in (cells[0], cells[-1]))
    assert first.startswith("emb in fp16: expected loss ") and last.startswith("head in int2-g64: expected loss ")
    assert len(classed(picture, "scale")) == HEAT_CLASSES
    heat = heat_for([s.loss for s in report.sensitivities])
    assert cells[0].get("class") == f"cell h{heat.class_of(report.sensitivities[0].loss)}"


def test_formats_run_from_many_bits_to_few(report: Report) -> None:
    shuffled = dataclasses.replace(report, sensitivities=tuple(reversed(report.sensitivities)))
    expected = ["fp16", "int8", "int6-g64", "int5-g64", "int4-g64", "int3-g64", "int2-g64"]
    assert grouping.searched_formats(shuffled.layers, shuffled.sensitivities) == expected


def test_columns_and_rows_are_evenly_placed(report: Report) -> None:
    cells = classed(heatmap.draw(report.layers, report.sensitivities), "cell")
    xs = sorted({float(c.get("x", "")) for c in cells})
    assert [b - a for a, b in pairwise(xs)] == pytest.approx([heatmap.CELL_WIDTH] * 6)
    key, value = float(cells[7].get("y", "")), float(cells[14].get("y", ""))
    assert value - key == pytest.approx(heatmap.CELL_HEIGHT)
    assert key - float(cells[0].get("y", "")) == pytest.approx(heatmap.CELL_HEIGHT + heatmap.GROUP_GAP)


def test_of_several_methods_the_best_is_shown() -> None:
    rows = [LayerLoss("a", "int8", kl, 8) for kl in (0.3, 0.1, 0.2)]
    assert heatmap.best_of(rows)[("a", "int8")].loss == 0.1


def test_untried_combinations_are_empty_places(edge: Report) -> None:
    picture = heatmap.draw(edge.layers, edge.sensitivities)
    assert (len(classed(picture, "cell")), len(classed(picture, "untried"))) == (2, 2)


def test_the_map_has_blocks_down_and_modules_across(report: Report) -> None:
    found = layermap.layer_map(report)
    assert found.modules[:2] == ("att.key", "att.value") and len(found.modules) == 7
    assert [name for name, _ in found.rows] == ["emb", *(f"blocks.{b}" for b in range(6)), "head"]
    assert all(sum(cell.span for cell in cells) == 7 for _, cells in found.rows)
    head = found.rows[-1][1][0]
    assert (head.format, head.level, head.span) == ("int4-g64", 4, 7)
    assert {cell.format for _, cells in found.rows for cell in cells} == {layer.format for layer in report.layers}


def test_a_missing_module_is_an_empty_place() -> None:
    rows = (LayerRow("b.0.x", "b.0", 4, 4, "int8", "m", 16, 64), LayerRow("b.0.y", "b.0", 4, 4, "int8", "m", 16, 64))
    cells = layermap._cells([rows[1]], ("x", "y"))
    assert [cell.level for cell in cells] == [0, 8]
    assert bits_per_weight(16, 4, 4) == 8.0


def test_blocks_add_up_to_the_manifest(report: Report) -> None:
    rows = grouping.block_rows(report)
    assert rows[-1].name == grouping.OTHER
    assert sum(row.bytes for row in rows) == report.manifest.bytes.weights
    assert sum(row.bytes_fp32 for row in rows) == report.manifest.bytes.weights_fp32
    for row in rows:
        assert sum(share.bytes for share in row.shares) == row.bytes


def test_bars_are_as_long_as_their_bytes(report: Report) -> None:
    rows, picture = grouping.block_rows(report), bars.draw(report, 900)
    before, after = classed(picture, "before"), classed(picture, "after")
    assert len(before) == len(rows)
    assert len(after) == sum(len(row.shares) for row in rows)
    longest = max(row.bytes_fp32 for row in rows)
    for bar, row in zip(before, rows, strict=True):
        assert float(bar.get("width", "")) == pytest.approx(900 * row.bytes_fp32 / longest, abs=0.01)
    total = sum(float(bar.get("width", "")) for bar in after)
    assert total == pytest.approx(900 * report.manifest.bytes.weights / longest, abs=0.01 * len(after))


def test_stacked_segments_join_end_to_end(report: Report) -> None:
    count = len(grouping.block_rows(report)[1].shares)
    segments = classed(bars.draw(report, 900), "after")[1 : 1 + count]
    ends = [float(s.get("x", "")) + float(s.get("width", "")) for s in segments]
    assert [float(s.get("x", "")) for s in segments[1:]] == pytest.approx(ends[:-1], abs=0.02)
