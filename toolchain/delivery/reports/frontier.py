"""The frontier picture: every evaluated candidate by bytes and drop, what was asked, and the one that was chosen."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from xml.etree import ElementTree as ET

from exporters.formats.catalog import is_format
from targets.device import quantities
from toolchain.delivery.reports import labels, svg
from toolchain.delivery.reports.data import Report
from toolchain.search.outcome import TriedCandidate

LINEAR_DROP = 0.01
"""The drop axis is even up to about this share and logarithmic beyond, so that 0 to 5 % take a third of it or more."""

CLIP_DROP = 1.0
"""Candidates that lose more than this are drawn at the upper edge, their true drop in the tooltip."""

LEAST_SPAN = 0.005
"""The drop axis reaches at least this far, so that noise does not look like loss."""

UNIFORM_TIER = "global"
MARK = 4.6
FONT = 12.0


@dataclass(frozen=True)
class Frame:
    """The plot area in picture units, and the scales into it."""

    left: float
    top: float
    right: float
    bottom: float
    x: svg.Scale
    y: svg.Scale

    def place(self, point: TriedCandidate) -> tuple[float, float]:
        """Centre of a candidate's mark."""
        return self.x.clamped(point.bytes), self.y.clamped(point.drop)


def tiers(report: Report) -> dict[str, int]:
    """Every tier in order of first appearance: its index chooses shape and colour."""
    return {tier: i for i, tier in enumerate(dict.fromkeys(p.tier for p in report.points))}


def shape_of(index: int) -> str:
    return svg.SHAPES[index % len(svg.SHAPES)]


def fp32_bytes(report: Report) -> int:
    """What a candidate's bytes are a share of: the uncompressed weights, and the states, which are never compressed."""
    return max(1, report.manifest.bytes.uncompressed)


def clipped(report: Report) -> int:
    """How many candidates are drawn at the upper edge because they lose more than the axis shows."""
    return sum(1 for p in report.points if not p.drop <= CLIP_DROP)


def frame_for(report: Report, width: float, height: float) -> Frame:
    """The plot area of a picture of width x height units, wide enough for every candidate and both limits."""
    left, top, right, bottom = 50.0, 14.0, width - 14.0, height - 54.0
    sizes = [max(1, p.bytes) for p in report.points] or [fp32_bytes(report)]
    low, high = min(sizes), max(sizes)
    if report.max_bytes and low / 2 <= report.max_bytes <= high * 2:
        low, high = min(low, report.max_bytes), max(high, report.max_bytes)
    drops = [p.drop for p in report.points if p.drop <= CLIP_DROP] + [min(report.max_drop or 0.0, CLIP_DROP)]
    least = min(0.0, *drops)
    most = CLIP_DROP if clipped(report) else max(LEAST_SPAN, *drops)
    return Frame(
        left=left, top=top, right=right, bottom=bottom,
        x=svg.log_scale(low * 0.9, high * 1.12, left, right),
        y=svg.symlog_scale(least, most, bottom - 12, top + 14, LINEAR_DROP),
    )  # fmt: skip


def draw(report: Report, width: float, height: float) -> ET.Element:
    """The picture in width x height units; one path of class "mark" per candidate."""
    frame = frame_for(report, width, height)
    picture = svg.canvas(width, height, "frontier", f"{len(report.points)} candidates by bytes and relative drop")
    _feasible(picture, frame, report)
    _axes(picture, frame, report)
    limits = _limits(picture, frame, report)
    line = _line(picture, frame, report.points)
    _marks(picture, frame, report)
    _labels(picture, frame, report, limits + line)
    return picture


def _feasible(picture: ET.Element, frame: Frame, report: Report) -> None:
    """The corner in which every asked limit holds."""
    if report.max_bytes is None and report.max_drop is None:
        return
    right = frame.right if report.max_bytes is None else min(frame.x(max(1, report.max_bytes)), frame.right)
    top = frame.top if report.max_drop is None else frame.y.clamped(report.max_drop)
    if right > frame.left:
        svg.add(picture, "rect", "feasible", x=frame.left, y=top, width=right - frame.left, height=frame.bottom - top)


def _axes(picture: ET.Element, frame: Frame, report: Report) -> None:
    whole = fp32_bytes(report)
    shares = svg.log_ticks(frame.x.low / whole, frame.x.high / whole)
    if len(shares) < 3:
        shares = svg.even_ticks(frame.x.low / whole, frame.x.high / whole)
    share_scale = svg.log_scale(frame.x.low / whole, frame.x.high / whole, frame.left, frame.right)
    for share in svg.thinned(shares, share_scale, 52):
        x = frame.x(share * whole)
        svg.add(picture, "line", "grid", x1=x, x2=x, y1=frame.top, y2=frame.bottom)
        svg.add_text(picture, "tick", f"{share * 100:g} %", x, frame.bottom + 16, "middle")
        svg.add_text(picture, "tick faint", quantities.bytes_text(share * whole), x, frame.bottom + 31, "middle")
    for drop in svg.thinned(svg.symlog_ticks(frame.y.low, frame.y.high), frame.y, 15):
        y = frame.y(drop)
        svg.add(picture, "line", "grid zero" if drop == 0 else "grid", x1=frame.left, x2=frame.right, y1=y, y2=y)
        svg.add_text(picture, "tick", f"{drop * 100:g} %", frame.left - 6, y + 4, "end")
    middle = (frame.left + frame.right) / 2
    svg.add_text(picture, "axis", "weights and states: of fp32, and in bytes", middle, frame.bottom + 48, "middle")
    y = (frame.top + frame.bottom) / 2
    svg.add_text(picture, "axis", "relative drop of the metric", 9, y, "middle", rotate=-90)


def _limits(picture: ET.Element, frame: Frame, report: Report) -> list[labels.Box]:
    """The limits as lines with their values; returns the boxes of the two texts."""
    boxes: list[labels.Box] = []
    if report.max_bytes is not None and frame.x.low <= report.max_bytes <= frame.x.high:
        x = frame.x(report.max_bytes)
        text = f"at most {quantities.bytes_text(report.max_bytes)}"
        room = len(text) * FONT * labels.WIDTH_PER_LETTER
        right = x + 5 + room <= frame.right
        svg.add(picture, "line", "limit", x1=x, x2=x, y1=frame.top, y2=frame.bottom)
        y = frame.top + 22
        svg.add_text(picture, "limit-label", text, x + 5 if right else x - 5, y, "start" if right else "end")
        left = x + 5 if right else x - 5 - room
        boxes.append(labels.Box(left, y - FONT, left + room, y + 4))
    if report.max_drop is not None and frame.y.low <= report.max_drop <= frame.y.high:
        y = frame.y(report.max_drop)
        text = f"at most {quantities.percent(report.max_drop)}"
        svg.add(picture, "line", "limit", x1=frame.left, x2=frame.right, y1=y, y2=y)
        svg.add_text(picture, "limit-label", text, frame.right - 4, y - 5, "end")
        room = len(text) * FONT * labels.WIDTH_PER_LETTER
        boxes.append(labels.Box(frame.right - 4 - room, y - 5 - FONT, frame.right, y - 2))
    return boxes


def _line(picture: ET.Element, frame: Frame, points: tuple[TriedCandidate, ...]) -> list[labels.Box]:
    """The frontier as steps, from each point level to the bytes of the next; returns the boxes of the steps."""
    line = sorted((p for p in points if p.on_frontier), key=lambda p: (p.bytes, -p.drop))
    corners = [frame.place(p) for p in line[:1]]
    for before, after in pairwise([frame.place(p) for p in line]):
        corners += [(after[0], before[1]), after]
    if len(corners) > 1:
        svg.add(picture, "path", "frontier-line", d=svg.polyline(corners))
    return [
        labels.Box(min(a[0], b[0]), min(a[1], b[1]) - 1, max(a[0], b[0]) + 1, max(a[1], b[1]))
        for a, b in pairwise(corners)
    ]


def _marks(picture: ET.Element, frame: Frame, report: Report) -> None:
    """Every candidate, the winner last and so on top, with a whisker up to the bound of its drop."""
    order, whole = tiers(report), fp32_bytes(report)
    for point in sorted(report.points, key=lambda p: (p.winner, p.on_frontier)):
        x, y = frame.place(point)
        index = order[point.tier]
        if point.winner:
            svg.add(picture, "line", "whisker", x1=x, x2=x, y1=y, y2=frame.y.clamped(point.upper))
            svg.add(picture, "circle", "halo", cx=x, cy=y, r=11)
        kind = f"mark t{index % len(svg.SHAPES)}" + (" on-frontier" if point.on_frontier else "")
        kind += " winner" if point.winner else ""
        shape = "star" if point.winner else shape_of(index)
        path = svg.mark_path(shape, x, y, 5.2 if point.winner else MARK)
        svg.add(picture, "path", kind, tip=describe(point, whole), d=path)


def _labels(picture: ET.Element, frame: Frame, report: Report, taken: list[labels.Box]) -> None:
    """The winner by name; uniform candidates by format, those on the frontier and with the lowest drop first."""
    wanted = [labels.Wanted("chosen", *frame.place(p), 14.0) for p in report.points if p.winner]
    uniform = [p for p in report.points if p.tier == UNIFORM_TIER and not p.winner]
    for point in sorted(uniform, key=lambda p: (not p.on_frontier, p.drop)):
        wanted.append(labels.Wanted(uniform_label(point), *frame.place(point), 8.0))
    marks = [labels.box_around(*frame.place(p), 9.0 if p.winner else MARK) for p in report.points]
    bounds = labels.Box(frame.left + 2, frame.top, frame.right, frame.bottom)
    for label in labels.place(wanted, marks + taken, bounds, FONT):
        svg.add_text(picture, "name chosen" if label.text == "chosen" else "name", label.text, label.x, label.y)


def uniform_label(point: TriedCandidate) -> str:
    """The format that a uniform candidate was tried in, as its reason names it; else how the reason begins."""
    return next(filter(is_format, point.why.replace(",", " ").split()), point.why[:16])


def describe(point: TriedCandidate, whole_bytes: int) -> str:
    """A candidate in one line, as tooltips say it."""
    size = f"{quantities.bytes_text(point.bytes)}, {quantities.percent(point.bytes / whole_bytes)} of fp32"
    drop = f"drop {quantities.signed_percent(point.drop)}, at most {quantities.signed_percent(point.upper)}"
    kind = f"{point.tier}: {point.why}" if point.why else point.tier
    return f"{kind}; {size}; {drop}; KL {quantities.significant(point.kl_mean)} nats per token"
