"""How codes lie in the tensors of the sparse formats: units of 128 inputs.

A unit keeps k codes of its 128 inputs, in the inputs' order. A tensor of b bits holds them in L = k * b / 8 bytes: byte
i has codes i, i + L, i + 2 L, ... from its lowest bits up. Rows lie one after another.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporters.formats.base import Array, PackedTensor
from exporters.formats.bits import UInt8
from exporters.formats.integer import CODE_BITS

UNIT = 128
"""Inputs of a unit; a row is padded to whole ones."""


def units(cols: int) -> int:
    return -(-cols // UNIT)


def padded_columns(cols: int) -> int:
    return units(cols) * UNIT


def unit_tensors(rows: int, cols: int, bits: int, kept: int) -> dict[str, PackedTensor]:
    """The packed tensors of codes of `bits` bits, `kept` of them per unit."""
    low, high = CODE_BITS[bits]
    packed = {"codes": PackedTensor((rows, units(cols) * kept * low // 8), np.dtype(np.uint8))}
    if high:
        packed["high"] = PackedTensor((rows, units(cols) * kept * high // 8), np.dtype(np.uint8))
    return packed


def _pack(codes: UInt8, bits: int) -> UInt8:
    """Codes [rows, units, kept] of one packed tensor as bytes."""
    rows, count, kept = codes.shape
    parts = codes.reshape(rows, count, 8 // bits, kept * bits // 8)
    joined = np.zeros((rows, count, kept * bits // 8), np.uint8)
    for i in range(8 // bits):
        joined |= parts[:, :, i] << np.uint8(i * bits)
    return joined.reshape(rows, -1)


def _unpack(tensor: UInt8, bits: int, kept: int) -> UInt8:
    size = kept * bits // 8
    joined = tensor.reshape(len(tensor), -1, 1, size)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    codes: UInt8 = (joined >> shifts) & np.uint8(2**bits - 1)
    return codes.reshape(len(tensor), -1)


def pack_units(codes: UInt8, bits: int, kept: int) -> dict[str, Array]:
    """Codes [rows, units * kept] as the packed tensors `codes` and, for 3, 5 and 6 bits, `high`."""
    low, high = CODE_BITS[bits]
    grouped = codes.reshape(len(codes), -1, kept)
    packed: dict[str, Array] = {"codes": _pack(grouped & np.uint8(2**low - 1), low)}
    if high:
        packed["high"] = _pack(grouped >> np.uint8(low), high)
    return packed


def unpack_units(packed: Mapping[str, Array], bits: int, kept: int) -> UInt8:
    """The codes [rows, units * kept] of packed tensors."""
    low, high = CODE_BITS[bits]
    codes = _unpack(packed["codes"].astype(np.uint8), low, kept)
    if high:
        codes = codes | _unpack(packed["high"].astype(np.uint8), high, kept) << np.uint8(low)
    return codes
