"""The picture of a study: every cell by bits per weight and drop, a mark per method."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from targets.device import quantities
from toolchain.delivery.reports import svg
from toolchain.study.results import Result

WIDTH, HEIGHT = 860.0, 470.0
LEFT, TOP, RIGHT, BOTTOM = 58.0, 16.0, 640.0, 420.0
MOST_DROP = 1.0
"""Cells that lose more are drawn at the upper edge, their true drop in the tooltip."""

LINEAR_DROP = 0.01

COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c", "#64b5cd", "#b08800")

STYLE = """
svg { font: 12px system-ui, sans-serif; background: #fff; } text { fill: #333; }
.grid { stroke: #ddd; } .zero { stroke: #888; } .tick, .axis { fill: #555; } .mark { stroke: #fff; stroke-width: .6; }
"""


def draw(results: Sequence[Result], title: str) -> str:
    """A picture that stands by itself; ours are stars, larger than the others."""
    picture = svg.canvas(WIDTH, HEIGHT, "study", title)
    picture.set("xmlns", "http://www.w3.org/2000/svg")
    ET.SubElement(picture, "style").text = STYLE
    bits = [r.bits_per_weight for r in results]
    drops = [min(r.relative_drop, MOST_DROP) for r in results]
    x = svg.log_scale(min(bits) * 0.92, max(bits) * 1.08, LEFT, RIGHT)
    y = svg.symlog_scale(min(0.0, *drops), max(0.01, *drops) * 1.1, BOTTOM, TOP, LINEAR_DROP)
    _axes(picture, x, y)
    methods = list(dict.fromkeys(r.method for r in results))
    for result in sorted(results, key=lambda r: r.method == "ours"):
        tip = f"{result.format}, {result.method}: {quantities.signed_percent(result.relative_drop)}"
        at = x(result.bits_per_weight), y.clamped(result.relative_drop)
        _mark(picture, methods.index(result.method), result.method, *at, tip)
    for i, method in enumerate(methods):
        _mark(picture, i, method, RIGHT + 30, TOP + 14 + 20 * i, method)
        svg.add_text(picture, "tick", method, RIGHT + 44, TOP + 18 + 20 * i)
    return svg.to_text(picture) + "\n"


def _mark(picture: ET.Element, index: int, method: str, x: float, y: float, tip: str) -> None:
    ours = method == "ours"
    shape = "star" if ours else svg.SHAPES[index % len(svg.SHAPES)]
    colour = "#111" if ours else COLOURS[index % len(COLOURS)]
    svg.add(picture, "path", "mark", tip=tip, d=svg.mark_path(shape, x, y, 5.4 if ours else 4.6), fill=colour)


def _axes(picture: ET.Element, x: svg.Scale, y: svg.Scale) -> None:
    for bits in svg.thinned([2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0], x, 22):
        if x.low <= bits <= x.high:
            svg.add(picture, "line", "grid", x1=x(bits), x2=x(bits), y1=TOP, y2=BOTTOM)
            svg.add_text(picture, "tick", f"{bits:g}", x(bits), BOTTOM + 16, "middle")
    for drop in svg.thinned(svg.symlog_ticks(y.low, y.high), y, 15):
        svg.add(picture, "line", "grid zero" if drop == 0 else "grid", x1=LEFT, x2=RIGHT, y1=y(drop), y2=y(drop))
        svg.add_text(picture, "tick", f"{drop * 100:g} %", LEFT - 6, y(drop) + 4, "end")
    svg.add_text(picture, "axis", "bits per weight of the compressed layers", (LEFT + RIGHT) / 2, BOTTOM + 36, "middle")
    svg.add_text(picture, "axis", "relative drop", 13, (TOP + BOTTOM) / 2, "middle", rotate=-90)
