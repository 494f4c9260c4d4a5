"""Decomposed weights: the sum of a few outliers and many inliers at other places, each N:M in a format of its own.

After SDQ (Jeong et al., arXiv 2406.13868): 1:8/int8+6:8/fp4-g16 is that paper's W7:8-1:8int8-6:8fp4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Array, Encoded, Float32, Format, PackedTensor
from exporters.formats.bits import UInt8
from exporters.formats.event import PREFIX
from exporters.formats.families import DECOMPOSED
from exporters.formats.nm import NmFormat
from exporters.formats.parts import Grid, Part, Piece, Product, StoredPart, Term, Work
from exporters.formats.patterns import Bool

OUTLIERS, INLIERS = "outlier_", "inlier_"
"""Prefixes of the two parts' packed tensors."""


@dataclass(frozen=True)
class DecomposedFormat(Format):
    """w = outlier + inlier; at most one of them is not zero, and both have the same period."""

    outliers: NmFormat
    inliers: NmFormat

    family = DECOMPOSED
    linear_only = True
    SPELLING = (
        "sparse, decomposed and four-bit float ones: 2:4/int4-g64, 4:8x16/int4-g64, 1:8/int8+6:8/fp4-g16, fp4-g16"
    )

    @classmethod
    def named(cls, name: str, others: Callable[[str], Format]) -> Self | None:
        if "/" not in name or name.startswith(PREFIX):
            return None
        parts = [NmFormat.part(part, name, others) for part in name.split("+")]
        if len(parts) != 2:
            raise SlmcError(f"unknown format {name!r}; a decomposed format has two parts: 1:8/int8+6:8/fp4-g16")
        outliers, inliers = parts
        if outliers.period != inliers.period or outliers.kept + inliers.kept > outliers.period:
            raise SlmcError(
                f"unknown format {name!r}; both parts need the same M, and their N may add up to no more than M: "
                "1:8/int8+6:8/fp4-g16"
            )
        if outliers.pattern_rows > 1 or inliers.pattern_rows > 1:
            raise SlmcError(f"unknown format {name!r}; parts of a decomposed format have a pattern per row")
        return cls(outliers, inliers)

    @property
    def name(self) -> str:
        return f"{self.outliers.name}+{self.inliers.name}"

    @property
    def bits(self) -> int:
        return self.inliers.bits

    @property
    def _by_prefix(self) -> tuple[tuple[str, NmFormat], ...]:
        return (OUTLIERS, self.outliers), (INLIERS, self.inliers)

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.outliers.parts + self.inliers.parts

    def layout_for(self, rows: int, cols: int) -> dict[str, PackedTensor]:
        return {p + n: tensor for p, fmt in self._by_prefix for n, tensor in fmt.layout_for(rows, cols).items()}

    def throughput(self) -> float:
        """Products per time beside 16-bit ones on hardware that skips zeros: 1 / sum N/M * bits/16 (SDQ, section 5)."""
        return 1 / sum(fmt.kept / fmt.period * fmt.bits / 16 for fmt in (self.outliers, self.inliers))

    def store(self, outlier: tuple[Bool, UInt8, Grid], inlier: tuple[Bool, UInt8, Grid]) -> Encoded:
        """Packed tensors of two parts, each its mask [rows, cols], codes [rows, cols] and grid.

        Raises:
            SlmcError: the masks overlap, or one keeps more than its part allows.
        """
        if (outlier[0] & inlier[0]).any():
            raise SlmcError(f"format {self.name}: a weight is both outlier and inlier; their places must be disjoint")
        return self._joined(self.outliers.store(*outlier), self.inliers.store(*inlier))

    def _joined(self, outlier: Encoded, inlier: Encoded) -> Encoded:
        packed: dict[str, Array] = {OUTLIERS + n: tensor for n, tensor in outlier.packed.items()}
        return Encoded(self.name, outlier.shape, packed | {INLIERS + n: tensor for n, tensor in inlier.packed.items()})

    def nearest(self, weight: Float32) -> Encoded:
        """The largest of every period become outliers, the next largest inliers, each rounded to the nearest."""
        magnitude = np.abs(weight)
        outlying = self.outliers.largest_mask(magnitude)
        staying = self.inliers.largest_mask(np.where(outlying, np.float32(-1), magnitude)) & ~outlying
        parts = []
        for fmt, mask in ((self.outliers, outlying), (self.inliers, staying)):
            part = np.where(mask, weight, np.float32(0))
            grid = fmt.nearest_grid(part)
            parts.append((mask, fmt.codes(part, grid), grid))
        return self.store(parts[0], parts[1])

    def part(self, encoded: Encoded, prefix: str) -> Encoded:
        """One part as its own format stores it; prefix is OUTLIERS or INLIERS."""
        fmt = dict(self._by_prefix)[prefix]
        packed = {n.removeprefix(prefix): p for n, p in encoded.packed.items() if n.startswith(prefix)}
        return Encoded(fmt.name, encoded.shape, packed, encoded.exponent)

    def values_of(self, encoded: Encoded) -> Float32:
        weight: Float32 = sum(
            (fmt.values_of(self.part(encoded, prefix)) for prefix, fmt in self._by_prefix), np.zeros((1, 1), np.float32)
        )
        return weight

    def split(self, encoded: Encoded) -> tuple[StoredPart, ...]:
        """A period with fewer weights than it may keep is filled up with zeros, which may lie on the other part's."""
        (outliers,), (inliers,) = (fmt.split(self.part(encoded, prefix)) for prefix, fmt in self._by_prefix)
        used = self.inliers.values_of(self.part(encoded, INLIERS)) != 0
        outliers = replace(outliers, mask=outliers.mask & ~used)
        return outliers, replace(inliers, mask=inliers.mask & ~outliers.mask)

    def join(self, pieces: Sequence[Piece]) -> Encoded:
        outlier, inlier = pieces
        return self.store(outlier, inlier)

    def summands(self, encoded: Encoded) -> tuple[tuple[Format, Encoded], ...]:
        return tuple((fmt, self.part(encoded, prefix)) for prefix, fmt in self._by_prefix)

    def product(self, encoded: Encoded) -> Product:
        outliers, inliers = (fmt.node(self.part(encoded, prefix)) for prefix, fmt in self._by_prefix)
        return Product((Term("outliers", (outliers,)), Term("inliers", (inliers,))), (0, 1))

    def work(self, rows: int, cols: int) -> tuple[Work, ...]:
        return self.outliers.work(rows, cols) + self.inliers.work(rows, cols)
