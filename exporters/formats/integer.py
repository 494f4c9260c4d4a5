"""Integer formats of 2, 3, 4, 5, 6 and 8 bits with a float16 scale per row or per group of inputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from exporters.formats.base import Encoded, Float32, Format, PackedTensor
from exporters.formats.bits import UInt8, pack, unpack
from exporters.formats.grid import GridFormat
from exporters.formats.parts import Grid, Node, Product, Term
from exporters.formats.scales import stored_scales
from exporters.formats.tiles import tile_of, tiled_tensors

CODE_BITS = {2: (2, 0), 3: (2, 1), 4: (4, 0), 5: (4, 1), 6: (4, 2), 8: (8, 0)}
"""Width -> bits in tensor `codes` and in tensor `high`; powers of two, so that no code straddles a byte."""

GROUPS = (16, 32, 64, 128, 256)
"""Group sizes that the kernels and MatMulNBits both know."""

INTEGER_TENSORS = ("codes", "scales", "high", "zeros")
"""As operators take them."""

ROW_PADDING = 32
"""Rows with one scale are padded to a multiple of this many codes."""

_NAME = re.compile(r"(u?)int([1-9])(?:-g([1-9][0-9]*))?")


@dataclass(frozen=True)
class IntegerFormat(GridFormat):
    """w = scale * (code - zero), code in 0 .. 2^bits - 1; zero is 2^(bits-1) (int) or stored per group (uint)."""

    SPELLING = (
        f"int or uint with {', '.join(map(str, CODE_BITS))} bits, per row or per group of "
        f"{', '.join(map(str, GROUPS))} inputs: int8, int4-g64, uint2-g32"
    )

    bits: int
    group: int | None
    symmetric: bool

    input_major = True
    operator = "QLinear"
    table = None
    least_share = 0.3

    @classmethod
    def named(cls, name: str, others: Callable[[str], Format]) -> Self | None:
        match = _NAME.fullmatch(name)
        if not match or int(match[2]) not in CODE_BITS or (match[3] and int(match[3]) not in GROUPS):
            return None
        return cls(int(match[2]), int(match[3]) if match[3] else None, not match[1])

    @classmethod
    def of_node(cls, operator: str, attributes: Mapping[str, int], cols: int, zeros: bool) -> Format | None:
        if operator != cls.operator:
            return None
        group = attributes["group"]
        return cls(attributes["bits"], group if group < cols else None, not zeros)

    @property
    def name(self) -> str:
        return f"{'int' if self.symmetric else 'uint'}{self.bits}" + (f"-g{self.group}" if self.group else "")

    @property
    def levels(self) -> int:
        return int(2**self.bits)

    @property
    def default_zero(self) -> int:
        return int(2 ** (self.bits - 1))

    @property
    def zero_code(self) -> int:
        """The code of a weight that is zero, where no zeros are stored."""
        return self.default_zero

    def steps(self, codes: NDArray[np.generic]) -> Float32:
        """How many scales a code stands for, where no zeros are stored."""
        return codes.astype(np.float32) - np.float32(self.default_zero)

    def group_size(self, cols: int) -> int:
        """Codes per group, padding included."""
        return self.group or -(-cols // ROW_PADDING) * ROW_PADDING

    def layout_for(self, rows: int, cols: int) -> dict[str, PackedTensor]:
        size, groups = self.group_size(cols), self.groups(cols)
        low, high = CODE_BITS[self.bits]
        byte = np.dtype(np.uint8)
        packed = {
            "codes": PackedTensor((rows, groups, size * low // 8), byte),
            "scales": PackedTensor((rows, groups), np.dtype(np.float16), power=1),
        }
        if high:
            packed["high"] = PackedTensor((rows, groups, size * high // 8), byte)
        if not self.symmetric:
            packed["zeros"] = PackedTensor((rows, groups), byte)
        return packed

    def grouped(self, weight: NDArray[np.generic]) -> NDArray[np.generic]:
        """[rows, cols] as [rows, groups, group], zeros after the last column."""
        rows, cols = weight.shape
        size, groups = self.group_size(cols), self.groups(cols)
        padded = np.zeros((rows, groups * size), weight.dtype)
        padded[:, :cols] = weight
        return padded.reshape(rows, groups, size)

    def nearest_grid(self, weight: Float32) -> Grid:
        """The grid that just covers every group: the larger side of a symmetric one lands on code 0."""
        grouped = self.grouped(weight)
        if self.symmetric:
            low, high = grouped.min(-1), grouped.max(-1)
            reach = np.where(-low >= high, low, high)
            return Grid(stored_scales(-reach / self.default_zero), None)
        low, high = np.minimum(grouped.min(-1), 0), np.maximum(grouped.max(-1), 0)
        scales = stored_scales((high - low) / (self.levels - 1))
        return Grid(scales, np.clip(np.rint(-low / scales), 0, self.levels - 1).astype(np.float32))

    def codes(self, weight: Float32, grid: Grid) -> UInt8:
        """The nearest code of every weight, [rows, cols]."""
        cols = weight.shape[1]
        size = self.group_size(cols)
        steps = np.rint(weight / np.repeat(grid.scales, size, 1)[:, :cols])
        steps += self.default_zero if grid.zeros is None else np.repeat(grid.zeros, size, 1)[:, :cols]
        codes: UInt8 = np.clip(steps, 0, self.levels - 1).astype(np.uint8)
        return codes

    def store(self, codes: UInt8, grid: Grid) -> Encoded:
        """Packed tensors of codes [rows, cols] on a grid; padding decodes to zero."""
        rows, cols = codes.shape
        low_bits, high_bits = CODE_BITS[self.bits]
        grouped = self.grouped(codes).astype(np.uint8)
        padding = cols - (self.groups(cols) - 1) * self.group_size(cols)
        grouped[:, -1, padding:] = self.default_zero if grid.zeros is None else grid.zeros[:, -1:]
        packed: dict[str, NDArray[np.generic]] = {
            "codes": pack(grouped & np.uint8(2**low_bits - 1), low_bits),
            "scales": grid.scales.astype(np.float16),
        }
        if high_bits:
            packed["high"] = pack(grouped >> np.uint8(low_bits), high_bits)
        if grid.zeros is not None:
            packed["zeros"] = grid.zeros.astype(np.uint8)
        return Encoded(self.name, (rows, cols), packed)

    def codes_of(self, encoded: Encoded) -> UInt8:
        """The codes as stored, [rows, groups, group]."""
        low_bits, high_bits = CODE_BITS[self.bits]
        codes = unpack(encoded.packed["codes"].astype(np.uint8), low_bits)
        if high_bits:
            codes = codes | (unpack(encoded.packed["high"].astype(np.uint8), high_bits) << np.uint8(low_bits))
        return codes

    def values_of(self, encoded: Encoded) -> Float32:
        codes = self.codes_of(encoded)
        scales = encoded.packed["scales"].astype(np.float32)[..., None]
        zeros: Float32 | np.float32 = np.float32(self.default_zero)
        if "zeros" in encoded.packed:
            zeros = encoded.packed["zeros"].astype(np.float32)[..., None]
        rows, cols = encoded.shape
        weight: Float32 = ((codes.astype(np.float32) - zeros) * scales).reshape(rows, -1)[:, :cols]
        return weight

    def product(self, encoded: Encoded) -> Product:
        """Packed tensors in tiles (exporters.formats.tiles)."""
        rows, cols = encoded.shape
        tile = tile_of(rows, self.group_size(cols), self.bits)
        return Product((Term("", (self._node(self.operator, encoded, tile),)),))

    def look_up(self, encoded: Encoded, shared: bool = False) -> Node:
        """Packed tensors row by row, except those that a linear layer has in tiles."""
        rows, cols = encoded.shape
        return self._node("QEmbedding", encoded, tile_of(rows, self.group_size(cols), self.bits) if shared else 0)

    def _node(self, operator: str, encoded: Encoded, tile: int) -> Node:
        rows, cols = encoded.shape
        packed = tiled_tensors(encoded.packed) if tile else encoded.packed
        attributes = {"K": cols, "N": rows, "bits": self.bits, "group": self.group_size(cols), "tile": tile}
        return Node(operator, INTEGER_TENSORS, packed, attributes)
