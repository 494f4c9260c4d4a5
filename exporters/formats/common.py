"""What all formats do alike: a matrix of any size is encoded at one size, and its power of two comes back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from exporters.formats.base import Encoded, Float32, Plane
from exporters.formats.scales import exponent_of, normalised, settled


class BaseFormat(ABC):
    """Formats say how a matrix of usual size is rounded and read; matrices of all sizes follow from that."""

    @abstractmethod
    def planes_for(self, rows: int, cols: int) -> dict[str, Plane]: ...

    @abstractmethod
    def nearest(self, weight: Float32) -> Encoded:
        """A normalised matrix [rows, cols] (exporters.formats.scales) rounded to the nearest storable values."""

    @abstractmethod
    def values_of(self, encoded: Encoded) -> Float32:
        """What the planes stand for [rows, cols], the power of two left out."""

    def exponent_for(self, weight: Float32) -> int:
        """The power of two that a matrix is encoded without."""
        return exponent_of(weight)

    def encode(self, weight: Float32) -> Encoded:
        return self.normally(weight, self.nearest)

    def normally(self, weight: Float32, encode: Callable[[Float32], Encoded]) -> Encoded:
        """A matrix of any size [rows, cols], by what encodes a normalised one in this format."""
        exponent = self.exponent_for(weight)
        if not exponent:
            return encode(weight)
        return self.settled(encode(normalised(weight, exponent)), exponent)

    def settled(self, encoded: Encoded, exponent: int) -> Encoded:
        """A normalised matrix, encoded, with its power of two back."""
        return settled(encoded, self.planes_for(*encoded.shape), exponent)

    def decode(self, encoded: Encoded) -> Float32:
        values = self.values_of(encoded)
        weight: Float32 = np.ldexp(values, encoded.exponent) if encoded.exponent else values
        return weight
