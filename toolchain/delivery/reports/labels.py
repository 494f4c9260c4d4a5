"""Where the labels of a scatter plot go: beside their marks, clear of one another, of other marks and of the edges."""

from __future__ import annotations

from dataclasses import dataclass

WIDTH_PER_LETTER = 0.58
"""Of the font size, for the sans serif faces in use; on the safe side."""


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def within(self, other: Box) -> bool:
        across = other.left <= self.left and self.right <= other.right
        return across and other.top <= self.top and self.bottom <= other.bottom


@dataclass(frozen=True)
class Wanted:
    """A label, the centre of the mark that it belongs to, and its distance from there."""

    text: str
    x: float
    y: float
    gap: float


@dataclass(frozen=True)
class Placed:
    """A label's text and the left end of its base line."""

    text: str
    x: float
    y: float


def box_around(x: float, y: float, r: float) -> Box:
    return Box(x - r, y - r, x + r, y + r)


def place(wanted: list[Wanted], marks: list[Box], bounds: Box, font: float) -> list[Placed]:
    """Places for labels, the important first; one that fits nowhere is left out, never drawn over another.

    Args:
        marks: what labels should keep off; they may touch two of these, but no other label, if there is no other way.
    """
    taken: list[Box] = []
    placed: list[Placed] = []
    for label in wanted:
        spots = [s for s in _spots(label, font) if s.within(bounds) and not any(map(s.overlaps, taken))]
        scored = [(sum(map(spot.overlaps, marks)), i, spot) for i, spot in enumerate(spots)]
        if not scored or (best := min(scored, key=lambda s: s[:2]))[0] > 2:
            continue
        taken.append(best[2])
        placed.append(Placed(label.text, best[2].left, best[2].bottom - 0.24 * font))
    return placed


def _spots(label: Wanted, font: float) -> list[Box]:
    """The boxes that a label may take: right, left, above, below, then the four corners."""
    width, half = len(label.text) * font * WIDTH_PER_LETTER, font * 0.55
    x, y, gap = label.x, label.y, label.gap
    across = (x + gap, x - gap - width, x - width / 2)
    level, above, below = y - half, y - gap - 2 * half, y + gap
    order = [(0, level), (1, level), (2, above), (2, below), (0, above), (0, below), (1, above), (1, below)]
    return [Box(across[i], top, across[i] + width, top + 2 * half) for i, top in order]
