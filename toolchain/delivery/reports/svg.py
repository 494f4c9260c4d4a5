"""The primitives of the pictures: SVG elements, scales from values to coordinates, ticks, marks of several shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree as ET

SHAPES = ("square", "triangle", "circle", "diamond", "wedge", "cross")

_SYMLOG_TICKS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_LOG_STEPS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)


def attribute(value: str | float) -> str:
    """Coordinates are rounded to a hundredth of a unit, so that equal pictures are equal text."""
    if isinstance(value, str):
        return value
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def canvas(width: float, height: float, kind: str, label: str) -> ET.Element:
    """An empty picture of width x height units that scales with its container; `label` is read to the blind."""
    view_box = f"0 0 {attribute(width)} {attribute(height)}"
    attributes = {"class": f"picture {kind}", "viewBox": view_box, "role": "img", "aria-label": label}
    return ET.Element("svg", attributes)


def add(parent: ET.Element, tag: str, kind: str, tip: str = "", **attributes: str | float) -> ET.Element:
    """A child element of class `kind`, with a tooltip where `tip` is given; text_anchor becomes text-anchor."""
    named = {name.replace("_", "-"): attribute(value) for name, value in attributes.items()}
    element = ET.SubElement(parent, tag, {"class": kind, **named})
    if tip:
        ET.SubElement(element, "title").text = tip
    return element


def add_text(
    parent: ET.Element, kind: str, text: str, x: float, y: float, anchor: str = "start", rotate: float = 0.0
) -> ET.Element:
    """A line of text whose anchor (start, middle, end) on the base line is (x, y); turned by so many degrees."""
    element = add(parent, "text", kind, x=x, y=y)
    if anchor != "start":
        element.set("text-anchor", anchor)
    if rotate:
        element.set("transform", f"rotate({attribute(rotate)} {attribute(x)} {attribute(y)})")
    element.text = text
    return element


def to_text(element: ET.Element) -> str:
    """The picture as it stands in an HTML page; names and texts come out escaped."""
    return ET.tostring(element, encoding="unicode")


@dataclass(frozen=True)
class Scale:
    """Values low..high onto coordinates start..end, evenly in transform(value)."""

    transform: Callable[[float], float]
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        low = self.transform(self.low)
        share = (self.transform(value) - low) / (self.transform(self.high) - low)
        return self.start + share * (self.end - self.start)

    def clamped(self, value: float) -> float:
        """As __call__, with values beyond the ends drawn at the ends; what is no number counts as too large."""
        return self(self.high if math.isnan(value) else min(max(value, self.low), self.high))


def log_scale(low: float, high: float, start: float, end: float) -> Scale:
    return Scale(transform=math.log, low=low, high=high, start=start, end=end)


def linear_scale(low: float, high: float, start: float, end: float) -> Scale:
    return Scale(transform=float, low=low, high=high, start=start, end=end)


def symlog_scale(low: float, high: float, start: float, end: float, linear: float) -> Scale:
    """asinh(value / linear): even up to about `linear` on both sides of zero, logarithmic beyond."""
    return Scale(transform=lambda value: math.asinh(value / linear), low=low, high=high, start=start, end=end)


def log_ticks(low: float, high: float) -> list[float]:
    """1, 1.5, 2, 3, 5, 7 times the powers of ten between low and high, both positive."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    return [v for p in powers for s in _LOG_STEPS if low <= (v := round(s * 10.0**p, 12)) <= high]


def even_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between low and high, about so many."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
    return [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def symlog_ticks(low: float, high: float) -> list[float]:
    """Round shares between low and high, both signs; evenly spaced ones where fewer than four of those fall inside."""
    both = sorted({-t for t in _SYMLOG_TICKS} | set(_SYMLOG_TICKS))
    inside = [tick + 0.0 for tick in both if low <= tick <= high]
    return inside if len(inside) > 3 else even_ticks(low, high)


def thinned(ticks: list[float], scale: Scale, room: float) -> list[float]:
    """The ticks whose labels fit, each at least `room` units from the one kept before it; zero is always kept."""
    kept: list[float] = [0.0] if 0.0 in ticks else []
    for tick in ticks:
        if all(abs(scale(tick) - scale(other)) >= room for other in kept):
            kept.append(tick)
    return sorted(kept)


def mark_path(shape: str, x: float, y: float, r: float) -> str:
    """The path of a mark centred at (x, y), of about equal area for every shape."""
    if shape == "circle":
        a = attribute
        return f"M{a(x - r)} {a(y)}a{a(r)} {a(r)} 0 1 0 {a(2 * r)} 0a{a(r)} {a(r)} 0 1 0 {a(-2 * r)} 0Z"
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "triangle": [(0, -1.2), (1.15, 0.85), (-1.15, 0.85)],
        "wedge": [(0, 1.2), (1.15, -0.85), (-1.15, -0.85)],
        "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        "cross": [(-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4), (0.4, 1.2), (-0.4, 1.2),
                  (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)],
        "star": [(math.sin(i * math.pi / 5) * size, -math.cos(i * math.pi / 5) * size)
                 for i, size in enumerate([1.7, 0.72] * 5)],
    }[shape]  # fmt: skip
    return polyline([(x + dx * r, y + dy * r) for dx, dy in corners]) + "Z"


def polyline(points: list[tuple[float, float]]) -> str:
    """The path through the points, open."""
    return "M" + "L".join(f"{attribute(x)} {attribute(y)}" for x, y in points)
