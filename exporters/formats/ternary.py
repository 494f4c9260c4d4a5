"""Ternary weights: -s, 0 and s, a float16 scale s per group of inputs (Li et al., arXiv 1605.04711)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from exporters.formats.base import Float32, Format
from exporters.formats.fewer_levels import FewerLevels
from exporters.formats.integer import GROUPS, IntegerFormat
from exporters.formats.parts import Grid
from exporters.formats.scales import stored_scales

_NAME = re.compile(r"ternary-g([1-9][0-9]*)", re.ASCII)


@dataclass(frozen=True)
class TernaryFormat(FewerLevels):
    """w = scale * (code - 1), code in 0, 1, 2: integers of two bits that leave one code out, whose kernels it has."""

    SPELLING = "ternary-g64 (-s, 0, s)"

    group: int
    bits: int = 2

    levels = 3
    default_zero = 1
    least_share = 0.1

    @classmethod
    def named(cls, name: str, others: Callable[[str], Format]) -> Self | None:
        match = _NAME.fullmatch(name)
        return cls(int(match[1])) if match and int(match[1]) in GROUPS else None

    @property
    def name(self) -> str:
        return f"ternary-g{self.group}"

    @property
    def integers(self) -> IntegerFormat:
        """What its packed tensors are those of."""
        return IntegerFormat(2, self.group, True)

    def nearest_grid(self, weight: Float32) -> Grid:
        """The scales with the least squared error: of the k largest of a group the mean, for the best k."""
        largest = -np.sort(-np.abs(self.integers.grouped(weight)).astype(np.float64), axis=-1)
        sums, counts = np.cumsum(largest, -1), np.arange(1, self.group + 1)
        best = (np.square(sums) / counts).argmax(-1)[..., None]
        means = np.take_along_axis(sums / counts, best, -1)[..., 0]
        return Grid(stored_scales(means.astype(np.float32)), None)
