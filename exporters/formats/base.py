"""What a weight format is: a name, an exact size law, and the way from planes of bytes back to numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Plane:
    """Shape and element type of one stored array.

    power: how a factor of the whole matrix enters a plane of floats: 1 for scales, 1/2 for each of two factors, 0 for
    codes and for values that take none.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    power: float = 0

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Encoded:
    """A weight matrix [rows, cols] as stored: named planes, laid out as its format says, and a power of two.

    exponent: what the planes stand for is 2^exponent times smaller than the matrix (exporters.formats.scales).
    """

    format: str
    shape: tuple[int, int]
    planes: Mapping[str, Array]
    exponent: int = 0

    @property
    def nbytes(self) -> int:
        return sum(plane.nbytes for plane in self.planes.values())


class Format(Protocol):
    """One way to store a weight matrix [rows, cols]."""

    @property
    def name(self) -> str:
        """As users write it: int4-g64."""
        ...

    @property
    def bits(self) -> int:
        """Bits of one stored value, without scales and indices."""
        ...

    def planes_for(self, rows: int, cols: int) -> dict[str, Plane]:
        """The arrays that a matrix of this shape is stored in."""
        ...

    def encode(self, weight: Float32) -> Encoded:
        """A matrix [rows, cols] rounded to the nearest storable values."""
        ...

    def decode(self, encoded: Encoded) -> Float32:
        """The matrix [rows, cols] that the planes and the exponent stand for."""
        ...

    def nearest(self, weight: Float32) -> Encoded:
        """`encode` for a normalised matrix (exporters.formats.scales)."""
        ...

    def values_of(self, encoded: Encoded) -> Float32:
        """`decode`, the exponent left out."""
        ...

    def normally(self, weight: Float32, encode: Callable[[Float32], Encoded]) -> Encoded:
        """A matrix of any size [rows, cols], by what encodes a normalised one in this format."""
        ...

    def settled(self, encoded: Encoded, exponent: int) -> Encoded:
        """A normalised matrix, encoded, with its power of two back."""
        ...


LARGE = 1024
"""Rows and columns of the matrix that a format's bits per weight are told for."""


def bytes_for(fmt: Format, rows: int, cols: int) -> int:
    """The size law: bytes that a matrix takes in a format, everything counted."""
    return sum(plane.nbytes for plane in fmt.planes_for(rows, cols).values())


def stored_bits(fmt: Format) -> float:
    """Bits per weight of a large matrix, scales and indices counted."""
    return 8 * bytes_for(fmt, LARGE, LARGE) / LARGE**2
