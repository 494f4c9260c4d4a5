"""Corrected weights: integers and a small float part beside them, a diagonal or a product of two thin matrices."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Array, Encoded, Float32, Format, PackedTensor
from exporters.formats.dense import FP16
from exporters.formats.families import CORRECTED
from exporters.formats.integer import IntegerFormat
from exporters.formats.parts import Node, Part, Product, StoredPart, Term, Work
from exporters.formats.scales import LARGEST_SCALE

HALF = np.dtype(np.float16)
MARK = "+"
"""Between a correction and the integers that it corrects: diag+int4-g64, lr4+int3-g64."""

LARGEST_RANK = 64

_NAME = re.compile(r"(?:diag|lr([1-9][0-9]*))\+([^+/]+)", re.ASCII)


@dataclass(frozen=True)
class CorrectedFormat(Format):
    """w = values + diag(d), d float32, or w = values + left right with left [rows, rank], right [rank, cols] float16.

    A diagonal serves matrices that are near one, as SpikeGPT's first `ffn.receptance` is: its few large values would
    set the scale of their groups. Low rank is SLiM's correction (Mozaffari et al., arXiv 2410.09615), its factors not
    rounded further. rank: 0 for a diagonal.
    """

    values: IntegerFormat
    rank: int

    family = CORRECTED
    linear_only = True
    SPELLING = f"integers with a correction beside them: diag{MARK}int4-g64, lr4{MARK}int3-g64"

    @classmethod
    def named(cls, name: str, others: Callable[[str], Format]) -> Self | None:
        match = _NAME.fullmatch(name)
        if not match:
            return None
        values, rank = others(match[2]), int(match[1] or 0)
        if not isinstance(values, IntegerFormat):
            raise SlmcError(f"unknown format {name!r}; a correction stands before integers: diag{MARK}int4-g64")
        if rank > LARGEST_RANK:
            raise SlmcError(f"unknown format {name!r}; the rank of a correction is at most {LARGEST_RANK}")
        return cls(values, rank)

    @property
    def name(self) -> str:
        return (f"lr{self.rank}" if self.rank else "diag") + MARK + self.values.name

    @property
    def bits(self) -> int:
        return self.values.bits

    def takes(self, rows: int, cols: int) -> bool:
        """Whether a matrix can have such a correction: a diagonal asks for a square, a rank for a larger one."""
        return min(rows, cols) > self.rank if self.rank else rows == cols

    def layout_for(self, rows: int, cols: int) -> dict[str, PackedTensor]:
        """Raises:
        SlmcError: the matrix cannot have such a correction.
        """
        self._check(rows, cols)
        own = {"diagonal": PackedTensor((rows,), np.dtype(np.float32), power=1)}
        if self.rank:
            own = {
                n: PackedTensor(s, HALF, power=0.5)
                for n, s in (("left", (rows, self.rank)), ("right", (self.rank, cols)))
            }
        return self.values.layout_for(rows, cols) | own

    @property
    def corrections(self) -> tuple[str, ...]:
        """Names of the packed tensors that correct."""
        return ("left", "right") if self.rank else ("diagonal",)

    def _check(self, rows: int, cols: int) -> None:
        if not self.takes(rows, cols):
            asked = f"more than {self.rank} rows and columns" if self.rank else "as many rows as columns"
            raise SlmcError(f"format {self.name}: the matrix is {rows} x {cols}; it needs {asked}")

    def store(self, values: Encoded, correction: Mapping[str, Array]) -> Encoded:
        """Packed tensors of the integers and of their correction (what `corrections` names)."""
        packed: dict[str, Array] = {**values.packed, **correction}
        return Encoded(self.name, values.shape, packed, values.exponent)

    def integers(self, encoded: Encoded) -> Encoded:
        """The integers alone, as their own format stores them."""
        own = {n: p for n, p in encoded.packed.items() if n not in self.corrections}
        return Encoded(self.values.name, encoded.shape, own, encoded.exponent)

    def beside(self, encoded: Encoded) -> Float32:
        """What is added to what the integers' packed tensors stand for, [rows, cols]."""
        if not self.rank:
            return np.diag(encoded.packed["diagonal"]).astype(np.float32)
        product: Float32 = encoded.packed["left"].astype(np.float32) @ encoded.packed["right"].astype(np.float32)
        return product

    def nearest(self, weight: Float32) -> Encoded:
        """The diagonal taken out before rounding to the nearest; or the rounding's error in its best low rank."""
        self._check(*weight.shape)
        if not self.rank:
            diagonal = np.diag(weight).copy()
            return self.store(self.values.nearest(weight - np.diag(diagonal)), {"diagonal": diagonal})
        values = self.values.nearest(weight)
        return self.store(values, thin(weight - self.values.values_of(values), self.rank))

    def values_of(self, encoded: Encoded) -> Float32:
        weight: Float32 = self.values.values_of(self.integers(encoded)) + self.beside(encoded)
        return weight

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.values.parts

    def split(self, encoded: Encoded) -> tuple[StoredPart, ...]:
        return self.values.split(self.integers(encoded))

    @property
    def correction(self) -> CorrectedFormat:
        return self

    def product(self, encoded: Encoded) -> Product:
        (values,) = self.values.product(self.integers(encoded)).terms
        names = ("right", "left") if self.rank else ("diagonal",)
        operator = "HalfLinear" if self.rank else "Mul"
        beside = tuple(Node(operator, (name,), {name: encoded.packed[name]}, {}) for name in names)
        return Product((Term("values", values.nodes), Term("", beside)), order=(1, 0))

    def work(self, rows: int, cols: int) -> tuple[Work, ...]:
        total = Work("Add", "", rows, 1, 0)
        if not self.rank:
            return *self.values.work(rows, cols), Work("Mul", "", rows, 1, 4 * rows), total
        return *self.values.work(rows, cols), *FP16.work(self.rank, cols), *FP16.work(rows, self.rank), total


def thin(error: Float32, rank: int) -> dict[str, NDArray[np.float16]]:
    """The two factors whose product comes closest to a matrix [rows, cols], of equal size (Eckart and Young)."""
    u, s, v = np.linalg.svd(error, full_matrices=False)
    root = np.sqrt(s[:rank])
    return {"left": half(u[:, :rank] * root), "right": half(root[:, None] * v[:rank])}


def half(values: NDArray[np.generic]) -> NDArray[np.float16]:
    """The nearest finite float16 values."""
    clipped: NDArray[np.float16] = np.clip(values, -LARGEST_SCALE, LARGEST_SCALE).astype(np.float16)
    return clipped
