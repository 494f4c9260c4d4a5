"""Formats that store every weight as a float, and the single sign bit of a binarised embedding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from exporters.formats.base import Encoded, Float32, Format, PackedTensor
from exporters.formats.bits import pack, unpack
from exporters.formats.parts import Node, Product, Term
from exporters.formats.scales import LARGEST_SCALE, float_fits


@dataclass(frozen=True)
class FloatFormat(Format):
    """fp32 or fp16: one tensor, `weight` [rows, cols]; a product in float32 keeps it transposed, as ONNX wants it."""

    SPELLING = "fp32, fp16"

    name: str
    bits: int

    @classmethod
    def named(cls, name: str, others: Callable[[str], Format]) -> Self | None:
        return next((cls(f"fp{bits}", bits) for bits in (32, 16) if name == f"fp{bits}"), None)

    @classmethod
    def of_node(cls, operator: str, attributes: Mapping[str, int], cols: int, zeros: bool) -> Format | None:
        return next((fmt for fmt in (FP32, FP16) if fmt.operator == operator), None)

    @property
    def operand_bits(self) -> int:  # type: ignore[override]
        return self.bits

    @property
    def operator(self) -> str:  # type: ignore[override]
        return "MatMul" if self.bits == 32 else "HalfLinear"

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(f"float{self.bits}")

    def layout_for(self, rows: int, cols: int) -> dict[str, PackedTensor]:
        return {"weight": PackedTensor((rows, cols), self.dtype)}

    def exponent_for(self, weight: Float32) -> int:
        return 0 if self.bits == 32 or float_fits(weight) else super().exponent_for(weight)

    def nearest(self, weight: Float32) -> Encoded:
        limit = LARGEST_SCALE if self.bits == 16 else np.inf
        stored = np.clip(weight, -limit, limit).astype(self.dtype)
        return Encoded(self.name, (weight.shape[0], weight.shape[1]), {"weight": stored})

    def values_of(self, encoded: Encoded) -> Float32:
        return encoded.packed["weight"].astype(np.float32)

    def product(self, encoded: Encoded) -> Product:
        weight = encoded.packed["weight"]
        stored = np.ascontiguousarray(weight.T) if self.bits == 32 else weight
        return Product((Term("", (Node(self.operator, ("weight",), {"weight": stored}, {}),)),))

    def look_up(self, encoded: Encoded, shared: bool = False) -> Node:
        weight = encoded.packed["weight"]
        if shared and self.bits == 32:
            return Node("GatherColumns", ("weight",), {"weight": np.ascontiguousarray(weight.T)}, {})
        return Node("Gather", ("weight",), {"weight": weight}, {})


@dataclass(frozen=True)
class SignFormat(Format):
    """One bit per weight, +1 where it is >= 0, else -1: exact where only the sign counts. Rows padded to bytes."""

    SPELLING = "sign"

    name: str = "sign"
    bits: int = 1

    exact_only = True

    @classmethod
    def named(cls, name: str, others: Callable[[str], Format]) -> Self | None:
        return cls() if name == cls.name else None

    def layout_for(self, rows: int, cols: int) -> dict[str, PackedTensor]:
        return {"codes": PackedTensor((rows, -(-cols // 8)), np.dtype(np.uint8))}

    def exponent_for(self, weight: Float32) -> int:
        return 0

    def nearest(self, weight: Float32) -> Encoded:
        rows, cols = weight.shape
        bits = np.zeros((rows, -(-cols // 8) * 8), np.uint8)
        bits[:, :cols] = weight >= 0
        return Encoded(self.name, (rows, cols), {"codes": pack(bits, 1)})

    def values_of(self, encoded: Encoded) -> Float32:
        bits = unpack(encoded.packed["codes"].astype(np.uint8), 1)[:, : encoded.shape[1]]
        return np.where(bits == 1, np.float32(1), np.float32(-1))

    def look_up(self, encoded: Encoded, shared: bool = False) -> Node:
        rows, cols = encoded.shape
        return Node("SignEmbedding", ("codes",), encoded.packed, {"K": cols, "N": rows})


FP32 = FloatFormat("fp32", 32)
FP16 = FloatFormat("fp16", 16)
SIGN = SignFormat()
