"""Formats that store every weight as a float, and the single sign bit of a binarised embedding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exporters.formats.base import Encoded, Float32, Plane
from exporters.formats.bits import pack, unpack
from exporters.formats.common import BaseFormat
from exporters.formats.scales import LARGEST_SCALE, float_fits


@dataclass(frozen=True)
class FloatFormat(BaseFormat):
    """fp32 or fp16: one plane, `weight` [rows, cols]."""

    name: str
    bits: int

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(f"float{self.bits}")

    def planes_for(self, rows: int, cols: int) -> dict[str, Plane]:
        return {"weight": Plane((rows, cols), self.dtype)}

    def exponent_for(self, weight: Float32) -> int:
        return 0 if self.bits == 32 or float_fits(weight) else super().exponent_for(weight)

    def nearest(self, weight: Float32) -> Encoded:
        limit = LARGEST_SCALE if self.bits == 16 else np.inf
        stored = np.clip(weight, -limit, limit).astype(self.dtype)
        return Encoded(self.name, (weight.shape[0], weight.shape[1]), {"weight": stored})

    def values_of(self, encoded: Encoded) -> Float32:
        return encoded.planes["weight"].astype(np.float32)


@dataclass(frozen=True)
class SignFormat(BaseFormat):
    """One bit per weight, +1 where it is >= 0, else -1: exact where only the sign counts. Rows padded to bytes."""

    name: str = "sign"
    bits: int = 1

    def planes_for(self, rows: int, cols: int) -> dict[str, Plane]:
        return {"codes": Plane((rows, -(-cols // 8)), np.dtype(np.uint8))}

    def exponent_for(self, weight: Float32) -> int:
        return 0

    def nearest(self, weight: Float32) -> Encoded:
        rows, cols = weight.shape
        bits = np.zeros((rows, -(-cols // 8) * 8), np.uint8)
        bits[:, :cols] = weight >= 0
        return Encoded(self.name, (rows, cols), {"codes": pack(bits, 1)})

    def values_of(self, encoded: Encoded) -> Float32:
        bits = unpack(encoded.planes["codes"].astype(np.uint8), 1)[:, : encoded.shape[1]]
        return np.where(bits == 1, np.float32(1), np.float32(-1))


FP32 = FloatFormat("fp32", 32)
FP16 = FloatFormat("fp16", 16)
SIGN = SignFormat()
