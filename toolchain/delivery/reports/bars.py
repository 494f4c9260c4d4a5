"""Bytes before and after by block: two bars each, the lower one stacked by format."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from targets.device import quantities
from toolchain.delivery.reports import svg
from toolchain.delivery.reports.data import Report
from toolchain.delivery.reports.grouping import BlockRow, block_rows
from toolchain.delivery.reports.palette import bit_level

ROW = 52.0
BAR = 11.0
TEXT = 18.0
"""Height of a block's line of text, above its bars."""


def scale_for(rows: list[BlockRow], width: float) -> svg.Scale:
    """Bytes onto 0..width; the longest bar fills the picture."""
    return svg.linear_scale(0, max([1, *(max(r.bytes, r.bytes_fp32) for r in rows)]), 0, width)


def draw(report: Report, width: float) -> ET.Element:
    """The picture, `width` units wide: a rect of class "before" per block, of class "after" per block and format."""
    rows = block_rows(report)
    scale = scale_for(rows, width)
    picture = svg.canvas(width, max(1.0, ROW * len(rows)), "bars", "bytes before and after by block")
    for index, row in enumerate(rows):
        _draw_row(picture, row, scale, ROW * index, width)
    return picture


def _draw_row(picture: ET.Element, row: BlockRow, scale: svg.Scale, y: float, width: float) -> None:
    before, after = quantities.bytes_text(row.bytes_fp32), quantities.bytes_text(row.bytes)
    share = f" ({quantities.percent(row.bytes / row.bytes_fp32)})" if row.bytes_fp32 else ""
    svg.add_text(picture, "tick strong", row.name, 0, y + TEXT - 6)
    svg.add_text(picture, "tick", f"{before} → {after}{share}", width, y + TEXT - 6, "end")
    tip = f"{row.name} in fp32: {before}"
    svg.add(picture, "rect", "before", tip=tip, x=0, y=y + TEXT, width=scale(row.bytes_fp32), height=BAR)
    x = 0.0
    for part in row.shares:
        kind = f"after b{bit_level(part.bits)}"
        layers = f", {part.layers} layers" if part.layers > 1 else ""
        tip = f"{row.name} in {part.format}: {quantities.bytes_text(part.bytes)}{layers}"
        svg.add(picture, "rect", kind, tip=tip, x=x, y=y + TEXT + BAR, width=scale(part.bytes), height=BAR)
        x += scale(part.bytes)
