"""Matrices that are ternary already: one float32 scale, five weights to a byte, nothing lost (arXiv 2402.17764)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from exporters.formats.base import Encoded, Float32, Format, PackedTensor
from exporters.formats.parts import Node, Product, Term

TILE_ROWS, WORD_BYTES, DIGITS = 16, 4, 5
WORD_INPUTS = WORD_BYTES * DIGITS

SMALLEST_SCALE = 1e-5
"""BitNet's least mean magnitude."""

_POWERS = 3 ** np.arange(DIGITS - 1, -1, -1)


@dataclass(frozen=True)
class TritFormat(Format):
    """w = scale * (digit - 1), digits to base 3. For layers that are so already; any other is brought there as BitNet
    does: scale = mean |w|, w -> scale * clip(round(w / scale), -1, 1).

    codes: uint8 [tiles of 16 rows, words of 20 inputs, 16 rows x 4 bytes]; a byte is the fraction f / 256 whose digits
    are those of inputs b, 4 + b, 8 + b ... of its word, b its place among the 4. scale: float32 [1].
    """

    SPELLING = "ternary (of layers that are ternary already)"

    name: str = "ternary"
    bits: int = 2

    linear_only = True
    exact_only = True
    operator = "TernaryLinear"

    @classmethod
    def named(cls, name: str, others: Callable[[str], Format]) -> Self | None:
        return cls() if name == cls.name else None

    @classmethod
    def of_node(cls, operator: str, attributes: Mapping[str, int], cols: int, zeros: bool) -> Format | None:
        return cls() if operator == cls.operator else None

    def layout_for(self, rows: int, cols: int) -> dict[str, PackedTensor]:
        shape = (-(-rows // TILE_ROWS), -(-cols // WORD_INPUTS), TILE_ROWS * WORD_BYTES)
        return {
            "codes": PackedTensor(shape, np.dtype(np.uint8)), "scale": PackedTensor((1,), np.dtype(np.float32)),
        }  # fmt: skip

    def exponent_for(self, weight: Float32) -> int:
        return 0

    def nearest(self, weight: Float32) -> Encoded:
        scale, steps = ternary(weight)
        rows, cols = weight.shape
        tiles, words = -(-rows // TILE_ROWS), -(-cols // WORD_INPUTS)
        digits = np.ones((tiles * TILE_ROWS, words * WORD_INPUTS), np.int64)
        digits[:rows, :cols] = steps + 1
        apart = digits.reshape(tiles, TILE_ROWS, words, DIGITS, WORD_BYTES)
        numbers = np.einsum("trwdb,d->twrb", apart, _POWERS)
        codes = -(-numbers * 256 // 3**DIGITS)  # rounded up, so that tripling gives the digits back
        packed = {"codes": codes.reshape(tiles, words, -1).astype(np.uint8), "scale": np.array([scale], np.float32)}
        return Encoded(self.name, (rows, cols), packed)

    def values_of(self, encoded: Encoded) -> Float32:
        rows, cols = encoded.shape
        tiles, words, _ = encoded.packed["codes"].shape
        left = encoded.packed["codes"].astype(np.int32).reshape(tiles, words, TILE_ROWS, WORD_BYTES)
        digits = []
        for _ in range(DIGITS):
            digits.append(3 * left // 256)
            left = 3 * left % 256
        steps = np.stack(digits, 3).transpose(0, 2, 1, 3, 4).reshape(tiles * TILE_ROWS, words * WORD_INPUTS) - 1
        scale = encoded.packed["scale"].astype(np.float32)
        values: Float32 = steps[:rows, :cols].astype(np.float32) * scale
        return values

    def product(self, encoded: Encoded) -> Product:
        rows, cols = encoded.shape
        attributes = {"K": cols, "N": rows}
        return Product((Term("", (Node(self.operator, ("codes", "scale"), encoded.packed, attributes),)),))


def ternary(weight: Float32) -> tuple[np.float32, NDArray[np.int64]]:
    """The scale of a matrix, and its weights in steps of it, -1, 0 or 1, [rows, cols].

    A matrix that has one magnitude beside zero is ternary already, and keeps it: BitNet's rule, used twice, would
    shrink it by the share of its zeros.
    """
    size = np.abs(weight)
    nonzero = size[size > 0]
    if nonzero.size and nonzero.min() == nonzero.max():
        return np.float32(nonzero[0]), np.sign(weight).astype(np.int64)
    scale = np.maximum(size.mean(dtype=np.float32), np.float32(SMALLEST_SCALE))
    return np.float32(scale), np.clip(np.rint(weight / scale), -1, 1).astype(np.int64)


TRITS = TritFormat()
