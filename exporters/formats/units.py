"""How codes lie in the planes of the sparse and four-bit float formats: units of 128 inputs, tiles of four rows.

A unit keeps k codes of its 128 inputs, in the inputs' order. A plane of b bits holds them in L = k * b / 8 bytes: byte
i has codes i, i + L, i + 2 L, ... from its lowest bits up, so that a vector's shift and mask gives codes that follow
one another. Four rows form a tile, whose bytes go unit by unit, row by row: a kernel that multiplies four rows at once
reads one stream. Rows behind the last whole tile lie one after another.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporters.formats.base import Array, Plane
from exporters.formats.bits import UInt8
from exporters.formats.integer import PLANE_BITS
from exporters.formats.tiles import interleaved, separated

UNIT = 128
"""Inputs of a unit; a row is padded to whole ones."""

TILE = 4
"""Rows whose bytes are interleaved."""


def units(cols: int) -> int:
    return -(-cols // UNIT)


def padded_columns(cols: int) -> int:
    return units(cols) * UNIT


def unit_planes(rows: int, cols: int, bits: int, kept: int) -> dict[str, Plane]:
    """The planes of codes of `bits` bits, `kept` of them per unit."""
    low, high = PLANE_BITS[bits]
    planes = {"codes": Plane((rows, units(cols) * kept * low // 8), np.dtype(np.uint8))}
    if high:
        planes["high"] = Plane((rows, units(cols) * kept * high // 8), np.dtype(np.uint8))
    return planes


def _pack(codes: UInt8, bits: int) -> UInt8:
    """Codes [rows, units, kept] of one plane as tiled bytes."""
    rows, count, kept = codes.shape
    parts = codes.reshape(rows, count, 8 // bits, kept * bits // 8)
    packed = np.zeros((rows, count, kept * bits // 8), np.uint8)
    for i in range(8 // bits):
        packed |= parts[:, :, i] << np.uint8(i * bits)
    return interleaved(packed.reshape(rows, -1), kept * bits // 8, TILE)


def _unpack(plane: UInt8, bits: int, kept: int) -> UInt8:
    size = kept * bits // 8
    packed = separated(plane, size, TILE).reshape(len(plane), -1, 1, size)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    codes: UInt8 = (packed >> shifts) & np.uint8(2**bits - 1)
    return codes.reshape(len(plane), -1)


def pack_units(codes: UInt8, bits: int, kept: int) -> dict[str, Array]:
    """Codes [rows, units * kept] as the planes `codes` and, for 3, 5 and 6 bits, `high`."""
    low, high = PLANE_BITS[bits]
    grouped = codes.reshape(len(codes), -1, kept)
    planes: dict[str, Array] = {"codes": _pack(grouped & np.uint8(2**low - 1), low)}
    if high:
        planes["high"] = _pack(grouped >> np.uint8(low), high)
    return planes


def unpack_units(planes: Mapping[str, Array], bits: int, kept: int) -> UInt8:
    """The codes [rows, units * kept] of planes."""
    low, high = PLANE_BITS[bits]
    codes = _unpack(planes["codes"].astype(np.uint8), low, kept)
    if high:
        codes = codes | _unpack(planes["high"].astype(np.uint8), high, kept) << np.uint8(low)
    return codes
