"""What a weight format is: all that is asked of one is asked of its object, and answered in plain values."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from exporters.artifact.errors import SlmcError
from exporters.formats.families import DENSE
from exporters.formats.parts import Array as Array
from exporters.formats.parts import Correction, Node, Part, Piece, Product, StoredPart, Work
from exporters.formats.parts import Float32 as Float32
from exporters.formats.scales import exponent_of, moved, normalised


@dataclass(frozen=True)
class PackedTensor:
    """Shape and element type of one stored array.

    power: how a factor of the whole matrix enters a tensor of floats: 1 for scales, 1/2 for each of two factors, 0 for
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
    """A weight matrix [rows, cols] as stored: named packed tensors, laid out as its format says, and a power of two.

    exponent: what the packed tensors stand for is 2^exponent times smaller than the matrix (exporters.formats.scales).
    """

    format: str
    shape: tuple[int, int]
    packed: Mapping[str, Array]
    exponent: int = 0

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.packed.values())


class Format(ABC):
    """One way to store a weight matrix [rows, cols]. What is not said otherwise holds for dense values of any kind."""

    SPELLING: ClassVar[str] = ""
    """How its names are written, for people."""

    family: str = DENSE
    """What a search compares and a report calls it (exporters.formats.families)."""

    linear_only: bool = False
    """Whether only linear layers that share no matrix may have it."""

    input_major: bool = False
    """Whether the same values may be stored input-major (exporters.formats.event)."""

    exact_only: bool = False
    """Whether only layers may have it that are in it already, so that nothing is lost (`Layer.exact` in a model)."""

    operand_bits: int = 8
    """Bits of a product's operands where energy is estimated; inputs are taken to be as wide as the weights."""

    operator: str = ""
    """The operator that multiplies with it, if one does it alone and a chain of nodes can measure it."""

    if TYPE_CHECKING:

        @property
        def name(self) -> str:
            """As users write it: int4-g64."""

        @property
        def bits(self) -> int:
            """Bits of one stored value, without scales and indices."""

    # --- its name ----------------------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def named(cls, name: str, others: Callable[[str], Format]) -> Self | None:
        """The format of this name, None for names of another form; others: gives the formats that names contain.

        Raises:
            SlmcError: the name has this form, but a part of it is not allowed.
        """

    @classmethod
    def of_node(cls, operator: str, attributes: Mapping[str, int], cols: int, zeros: bool) -> Format | None:
        """The format of a matrix that a graph's node multiplies with, None if it is of another kind."""
        return None

    # --- what is stored ----------------------------------------------------------------------------------------------

    @abstractmethod
    def layout_for(self, rows: int, cols: int) -> dict[str, PackedTensor]:
        """The arrays that a matrix of this shape is stored in."""

    def takes(self, rows: int, cols: int) -> bool:
        """Whether a matrix of this shape can be stored."""
        return True

    @abstractmethod
    def nearest(self, weight: Float32) -> Encoded:
        """A normalised matrix [rows, cols] (exporters.formats.scales) rounded to the nearest storable values."""

    @abstractmethod
    def values_of(self, encoded: Encoded) -> Float32:
        """What the packed tensors stand for [rows, cols], the exponent left out."""

    def encode(self, weight: Float32) -> Encoded:
        """A matrix [rows, cols] rounded to the nearest storable values."""
        return self.normally(weight, self.nearest)

    def decode(self, encoded: Encoded) -> Float32:
        """The matrix [rows, cols] that the packed tensors and the exponent stand for."""
        return normalised(self.values_of(encoded), -encoded.exponent)

    def exponent_for(self, weight: Float32) -> int:
        """The power of two that a matrix is encoded without."""
        return exponent_of(weight)

    def normally(self, weight: Float32, encode: Callable[[Float32], Encoded]) -> Encoded:
        """A matrix of any size [rows, cols], by what encodes a normalised one in this format."""
        exponent = self.exponent_for(weight)
        if not exponent:
            return encode(weight)
        return self.settled(encode(normalised(weight, exponent)), exponent)

    def settled(self, encoded: Encoded, exponent: int) -> Encoded:
        """A normalised matrix, encoded, with its power of two back: in its packed tensors if they can hold it."""
        powers = {name: tensor.power for name, tensor in self.layout_for(*encoded.shape).items() if tensor.power}
        packed = {name: moved(encoded.packed[name], exponent, power) for name, power in powers.items()}
        held = {name: tensor for name, tensor in packed.items() if tensor is not None}
        if not packed or len(held) < len(packed):
            return dataclasses.replace(encoded, exponent=encoded.exponent + exponent)
        return dataclasses.replace(encoded, packed={**encoded.packed, **held})

    # --- what it is made of ------------------------------------------------------------------------------------------

    @property
    def parts(self) -> tuple[Part, ...]:
        """The summands of a matrix, the most important weights in the first; none for floats and signs."""
        return ()

    learned: tuple[int, ...] | None = None
    """Steps that one matrix has for itself (exporters.formats.nonuniform); None where all have the same."""

    def fitted(self, weight: Float32, importance: Float32 | None = None) -> Self:
        """The same format with what a matrix [rows, cols] learns; importance: of its inputs, [cols]."""
        return self

    @property
    def even(self) -> bool:
        """Whether it is one part of evenly spaced values that leaves nothing out."""
        return len(self.parts) == 1 and not self.patterned and self.parts[0].values.table is None

    @property
    def patterned(self) -> bool:
        """Whether a part leaves weights out."""
        return any(part.kept < part.period for part in self.parts)

    def split(self, encoded: Encoded) -> tuple[StoredPart, ...]:
        """The parts of a stored matrix."""
        return ()

    def join(self, pieces: Sequence[Piece]) -> Encoded:
        """A normalised matrix of its parts, each with a mask, codes and a grid."""
        raise SlmcError(f"format {self.name} has no codes")

    def summands(self, encoded: Encoded) -> tuple[tuple[Format, Encoded], ...]:
        """A stored matrix as a sum of matrices, each in a format of its own."""
        return ((self, encoded),)

    @property
    def plain(self) -> Format:
        """The format that has the same codes in the usual order: itself, but for other layouts."""
        return self

    def from_plain(self, encoded: Encoded) -> Encoded:
        """The same matrix in this layout."""
        return encoded

    @property
    def correction(self) -> Correction | None:
        """Itself, if it is one; then methods find codes for its `values`."""
        return None

    # --- what a graph computes with it, and what that costs ----------------------------------------------------------

    def input_group(self, cols: int) -> int | None:
        """The group in whose blocks (ops/activations.py) a product can round its inputs to 8 bits; None: it cannot."""
        return None

    def product(self, encoded: Encoded) -> Product:
        """y = x W^T.

        Raises:
            SlmcError: no linear layer can have this format.
        """
        raise self.cannot_hold("linear")

    def look_up(self, encoded: Encoded, shared: bool = False) -> Node:
        """Rows of the matrix, float32; shared: a linear layer has the same packed tensors.

        Raises:
            SlmcError: no embedding can have this format.
        """
        raise self.cannot_hold("embedding")

    def cannot_hold(self, kind: str) -> SlmcError:
        return SlmcError(
            f"format {self.name} cannot hold a {kind} layer; sign is for binarised embeddings only; sparse, "
            "four-bit float, corrected and event/ formats are for linear layers only"
        )

    def work(self, rows: int, cols: int) -> tuple[Work, ...]:
        """What a cost model prices for one product."""
        return (Work(self.operator, self.name, rows, cols, bytes_for(self, rows, cols)),)


LARGE = 1024
"""Rows and columns of the matrix that a format's bits per weight are told for."""


def bytes_for(fmt: Format, rows: int, cols: int) -> int:
    """The size law: bytes that a matrix takes in a format, everything counted."""
    return sum(tensor.nbytes for tensor in fmt.layout_for(rows, cols).values())


def stored_bits(fmt: Format) -> float:
    """Bits per weight of a large matrix, scales and indices counted."""
    return 8 * bytes_for(fmt, LARGE, LARGE) / LARGE**2
