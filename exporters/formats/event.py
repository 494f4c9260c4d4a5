"""Integer formats stored input-major, for layers whose inputs are mostly zero: a product reads only the rows in use."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from exporters.formats.base import Array, Encoded, Float32, Format, PackedTensor
from exporters.formats.bits import UInt8, pack, unpack
from exporters.formats.integer import CODE_BITS, INTEGER_TENSORS, IntegerFormat
from exporters.formats.parts import Grid, Node, Part, Piece, Product, StoredPart, Term

PREFIX = "event/"

BLOCK_WORDS = 16
"""Words of 32 bits, of the packed tensor `codes`, whose outputs are interleaved."""

LEAST_WORDS = 4
"""The words of a row are padded to a multiple of this many."""


def row_words(rows: int, low_bits: int) -> int:
    """Words of 32 bits that the low codes of so many outputs take."""
    per_word = 32 // low_bits
    return -(-rows // (LEAST_WORDS * per_word)) * LEAST_WORDS


def stored_order(rows: int, low_bits: int) -> NDArray[np.int64]:
    """The output that every stored code of a row belongs to, padding (>= rows) included.

    Place p of word i is output p * words + i of its block of `words` = 16 words (of what is left, in the last block),
    so that a vector of words unpacks to vectors of outputs that follow one another.
    """
    per_word, words = 32 // low_bits, row_words(rows, low_bits)
    blocks = []
    for first in range(0, words, BLOCK_WORDS):
        outputs = np.arange(first * per_word, min(first + BLOCK_WORDS, words) * per_word)
        blocks.append(outputs.reshape(per_word, -1).T.ravel())
    return np.concatenate(blocks)


@dataclass(frozen=True)
class EventFormat(Format):
    """The codes, scales and zeros of a dense integer format, one row per input.

    codes, high: uint8 [cols, bytes of a row]; scales, zeros: [groups, rows]. Inputs are not padded.
    """

    SPELLING = f"{PREFIX} before one of these stores it for inputs that are mostly zero"

    dense: IntegerFormat

    linear_only = True

    @classmethod
    def named(cls, name: str, others: Callable[[str], Format]) -> Self | None:
        dense = IntegerFormat.named(name.removeprefix(PREFIX), others) if name.startswith(PREFIX) else None
        return cls(dense) if dense else None

    @classmethod
    def of_node(cls, operator: str, attributes: Mapping[str, int], cols: int, zeros: bool) -> Format | None:
        if operator != "EventLinear":
            return None
        dense = IntegerFormat.of_node(IntegerFormat.operator, attributes, cols, zeros)
        return cls(dense) if isinstance(dense, IntegerFormat) else None

    @property
    def name(self) -> str:
        return PREFIX + self.dense.name

    @property
    def bits(self) -> int:
        return self.dense.bits

    def layout_for(self, rows: int, cols: int) -> dict[str, PackedTensor]:
        low, high = CODE_BITS[self.bits]
        words, groups, byte = row_words(rows, low), self.dense.groups(cols), np.dtype(np.uint8)
        packed = {
            "codes": PackedTensor((cols, 4 * words), byte),
            "scales": PackedTensor((groups, rows), np.dtype(np.float16), power=1),
        }
        if high:
            packed["high"] = PackedTensor((cols, 4 * words * high // low), byte)
        if not self.dense.symmetric:
            packed["zeros"] = PackedTensor((groups, rows), byte)
        return packed

    def from_dense(self, encoded: Encoded) -> Encoded:
        """The same matrix, input-major."""
        rows, cols = encoded.shape
        low, high = CODE_BITS[self.bits]
        order = stored_order(rows, low)

        def rearranged(name: str, bits: int) -> UInt8:
            dense = unpack(encoded.packed[name].astype(np.uint8).reshape(rows, -1), bits)[:, :cols]
            padded = np.zeros((order.size, cols), np.uint8)
            padded[:rows] = dense
            return pack(np.ascontiguousarray(padded[order].T), bits)

        packed: dict[str, Array] = {
            "codes": rearranged("codes", low),
            "scales": np.ascontiguousarray(encoded.packed["scales"].T),
        }
        if high:
            packed["high"] = rearranged("high", high)
        if "zeros" in encoded.packed:
            packed["zeros"] = np.ascontiguousarray(encoded.packed["zeros"].T)
        return Encoded(self.name, encoded.shape, packed, encoded.exponent)

    def to_dense(self, encoded: Encoded) -> Encoded:
        """The same matrix in the dense format."""
        rows = encoded.shape[0]
        low, high = CODE_BITS[self.bits]
        place = np.argsort(stored_order(rows, low))[:rows]

        def codes(name: str, bits: int) -> UInt8:
            return unpack(encoded.packed[name].astype(np.uint8), bits)[:, place].T

        joined = codes("codes", low)
        if high:
            joined = joined | codes("high", high) << np.uint8(low)
        scales = encoded.packed["scales"].T.astype(np.float32)
        zeros = encoded.packed["zeros"].T.astype(np.float32) if "zeros" in encoded.packed else None
        return dataclasses.replace(self.dense.store(joined, Grid(scales, zeros)), exponent=encoded.exponent)

    def nearest(self, weight: Float32) -> Encoded:
        return self.from_dense(self.dense.nearest(weight))

    def values_of(self, encoded: Encoded) -> Float32:
        return self.dense.values_of(self.to_dense(encoded))

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.dense.parts

    def split(self, encoded: Encoded) -> tuple[StoredPart, ...]:
        return self.dense.split(self.to_dense(encoded))

    def join(self, pieces: Sequence[Piece]) -> Encoded:
        return self.from_dense(self.dense.join(pieces))

    @property
    def plain(self) -> Format:
        return self.dense

    def from_plain(self, encoded: Encoded) -> Encoded:
        return self.from_dense(encoded)

    def input_group(self, cols: int) -> int | None:
        return self.dense.input_group(cols)

    def product(self, encoded: Encoded) -> Product:
        rows, cols = encoded.shape
        attributes = {"K": cols, "N": rows, "bits": self.bits, "group": self.dense.group_size(cols)}
        return Product((Term("", (Node("EventLinear", INTEGER_TENSORS, encoded.packed, attributes),)),))
