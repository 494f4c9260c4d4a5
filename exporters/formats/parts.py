"""What formats say of themselves as plain values: what is stored, what is multiplied with it, what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from exporters.formats.base import Encoded

Array = NDArray[np.generic]
Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Grid:
    """The storable values of every group: scales float32 [rows, groups] (exact in float16), zeros likewise or None.

    steps: those that the matrix has learned, integers from -128 to 127 as float32 [levels]; None where they are fixed.
    """

    scales: Float32
    zeros: Float32 | None
    steps: Float32 | None = None


class Values(Protocol):
    """Numbers with a scale per group: w = scale * step, one of few steps.

    Steps are code - default_zero (or a stored zero), code in 0 .. levels - 1; or, for code c, table[c], which may be
    fixed or learned for every matrix.
    """

    @property
    def name(self) -> str: ...

    @property
    def bits(self) -> int: ...

    @property
    def group(self) -> int | None:
        """Inputs that share a scale; None for a whole row."""
        ...

    @property
    def symmetric(self) -> bool:
        """Whether no zeros are stored."""
        ...

    @property
    def levels(self) -> int: ...

    @property
    def default_zero(self) -> int:
        """The code of zero where no zeros are stored."""
        ...

    @property
    def table(self) -> Float32 | None:
        """The step of every code, those without a sign first, in order, or all in order; None where steps are even."""
        ...

    @property
    def learned(self) -> tuple[int, ...] | None:
        """The steps of one matrix; None where no matrix has any of its own, or it is not said which."""
        ...

    def fitted(self, weight: Float32, importance: Float32 | None = None) -> Self:
        """The same values with what a matrix [rows, cols] learns; importance: of its inputs, [cols]."""
        ...

    @property
    def least_share(self) -> float:
        """Range search tries ranges from this share of a group's largest weight upwards."""
        ...

    def group_size(self, cols: int) -> int:
        """Codes per group, padding included."""
        ...

    def groups(self, cols: int) -> int: ...

    def nearest_grid(self, weight: Float32) -> Grid:
        """A grid for a matrix [rows, cols] that suits its largest weights."""
        ...

    def codes(self, weight: Float32, grid: Grid) -> UInt8:
        """The nearest code of every weight, [rows, cols]."""
        ...

    def store(self, codes: UInt8, grid: Grid) -> Encoded:
        """A matrix of codes [rows, cols], nothing left out, in the format of these values."""
        ...

    def nearest(self, weight: Float32) -> Encoded: ...

    def values_of(self, encoded: Encoded) -> Float32: ...


@dataclass(frozen=True)
class Part:
    """One summand of a matrix: `kept` of every `period` inputs have values; so many rows share a pattern."""

    values: Values
    kept: int = 1
    period: int = 1
    pattern_rows: int = 1


@dataclass(frozen=True)
class StoredPart:
    """A part of a stored matrix.

    mask: which weights are its own, bool [rows, cols]; scales: float32 [rows, groups], the exponent left out; zeros:
    likewise, or None for the values' own.
    """

    values: Values
    mask: Bool
    scales: Float32
    zeros: Float32 | None = None


Piece = tuple[Bool, UInt8, Grid]
"""What a part is stored from: its mask [rows, cols], codes [rows, cols] and grid."""


class Correction(Protocol):
    """Values and a small float part beside them, whose packed tensors have these names."""

    @property
    def values(self) -> Values: ...

    @property
    def rank(self) -> int:
        """Of a product of two thin matrices; 0 for a diagonal."""
        ...

    @property
    def corrections(self) -> tuple[str, ...]: ...

    def store(self, values: Encoded, correction: Mapping[str, Array]) -> Encoded: ...

    def integers(self, encoded: Encoded) -> Encoded:
        """The values alone, as their own format stores them."""
        ...

    def beside(self, encoded: Encoded) -> Float32:
        """What is added to what the values' packed tensors stand for, [rows, cols]."""
        ...

    def settled(self, encoded: Encoded, exponent: int) -> Encoded: ...


@dataclass(frozen=True)
class Node:
    """An operator (exporters.ops.signatures, or ONNX's own) over packed tensors; inputs: their names, in its order.

    attributes: all but activation_bits, which no format decides.
    """

    operator: str
    inputs: tuple[str, ...]
    packed: Mapping[str, Array]
    attributes: Mapping[str, int]


@dataclass(frozen=True)
class Term:
    """Nodes one behind the other; at: what the packed tensors' names begin with in a graph, '' for nothing."""

    at: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Product:
    """y = x W^T as a sum of terms; order: in which they are computed."""

    terms: tuple[Term, ...]
    order: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Work:
    """What a cost model prices: an operator over a matrix [rows, cols] in a format, or over [rows] (cols 1, no format).

    operator: '' where no chain of nodes measures it (exporters.microbenchmarks).
    """

    operator: str
    format: str
    rows: int
    cols: int
    nbytes: int
