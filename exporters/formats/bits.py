"""Packing of small unsigned codes into bytes, least significant bits first, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]


def pack(codes: UInt8, bits: int) -> UInt8:
    """Codes < 2^bits, [..., n], as bytes [..., n * bits / 8]; bits divides 8 and n * bits fills whole bytes."""
    per_byte = 8 // bits
    grouped = codes.reshape(*codes.shape[:-1], codes.shape[-1] // per_byte, per_byte)
    packed = np.zeros(grouped.shape[:-1], np.uint8)
    for i in range(per_byte):
        packed |= grouped[..., i] << np.uint8(i * bits)
    return packed


def unpack(packed: UInt8, bits: int) -> UInt8:
    """The codes [..., n * 8 / bits] that `pack` stored in bytes [..., n]."""
    per_byte = 8 // bits
    codes = np.empty((*packed.shape, per_byte), np.uint8)
    for i in range(per_byte):
        codes[..., i] = (packed >> np.uint8(i * bits)) & np.uint8(2**bits - 1)
    return codes.reshape(*packed.shape[:-1], packed.shape[-1] * per_byte)
