"""Which colour class a number gets: bits per weight and logarithmic heat; the colours themselves are in style.css."""

from __future__ import annotations

import math
from dataclasses import dataclass

BIT_LEVELS = (1, 2, 3, 4, 5, 6, 8, 16, 32)
"""One colour each, classes b1 to b32."""

HEAT_CLASSES = 12
"""Classes h0 (harmless) to h11."""

MAX_DECADES = 6

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def bits_per_weight(size_bytes: int, rows: int, cols: int) -> float:
    """Bits that one weight takes as stored, scales and indices included."""
    return size_bytes * 8 / (rows * cols) if rows * cols else 0.0


def bit_level(bits: float) -> int:
    """The level of a format with so many bits per weight, scales counted: 4.25 is 4, 2.75 is 2, 0.8 is 1."""
    return max((level for level in BIT_LEVELS if level <= bits), default=BIT_LEVELS[0])


@dataclass(frozen=True)
class Heat:
    """A logarithmic colour scale from 10**low to 10**high; whole decades."""

    low: int
    high: int

    def class_of(self, value: float) -> int:
        """0 to HEAT_CLASSES - 1; zero, negative and small values are 0, infinite and unknown ones the last."""
        if math.isnan(value) or value == math.inf:
            return HEAT_CLASSES - 1
        if value <= 0:
            return 0
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return min(HEAT_CLASSES - 1, max(0, math.floor(share * HEAT_CLASSES)))

    def decades(self) -> list[tuple[int, str]]:
        """Every decade of the scale with its label: (-3, "10⁻³")."""
        return [(power, power_of_ten(power)) for power in range(self.low, self.high + 1)]


def power_of_ten(power: int) -> str:
    return "10" + str(power).translate(_SUPERSCRIPT)


def heat_for(values: list[float]) -> Heat:
    """The scale that spans the positive values in whole decades, at most MAX_DECADES of them, cut at the low end."""
    logs = [math.log10(v) for v in values if v > 0 and math.isfinite(v)]
    if not logs:
        return Heat(-6, 0)
    high = math.ceil(max(logs))
    low = max(math.floor(min(logs)), high - MAX_DECADES)
    return Heat(min(low, high - 1), high)
