"""Scales as float16, and the power of two of a matrix whose scales would be too small or too large for one.

Every matrix is encoded at about the same size: `normalised` takes a power of two out of it. `Format.settled` puts it
back into the scales, where they stay normal numbers; else `Encoded.exponent` keeps it. So a matrix scaled by 2^k has
the same codes. What remains: groups more than about 2^18 times smaller than the largest weight of their matrix decode
to zero, and matrices whose largest weight is below 2^-115 have less of that range.
"""

from __future__ import annotations

import numpy as np

from exporters.formats.parts import Array, Float32

SMALLEST_SCALE = float(np.finfo(np.float16).smallest_normal)
LARGEST_SCALE = float(np.finfo(np.float16).max)

TOP = 12
"""A matrix is encoded with its largest weight in [2^(TOP - 1), 2^(TOP + 1))."""

LARGEST_EXPONENT = 126
"""Of either sign: beyond it a power of two is no normal float32."""


SMALLEST_LARGEST = 2.0**-9
"""Of plain float16 values: below, those under the smallest normal one add more than 1 % to float16's own error."""


def stored_scales(scales: Float32) -> Float32:
    """Scales as float16 keeps them, away from zero and infinity, so that codes are rounded on the real grid."""
    sign = np.where(scales < 0, np.float32(-1), np.float32(1))
    magnitude = np.clip(np.abs(scales), SMALLEST_SCALE, LARGEST_SCALE)
    stored: Float32 = (sign * magnitude).astype(np.float16).astype(np.float32)
    return stored


def exponent_of(weight: Float32) -> int:
    """The power of two that a matrix is encoded without; even, so that it has a square root; 0 for zeros."""
    largest = float(np.abs(weight).max(initial=0))
    if largest == 0 or not np.isfinite(largest):
        return 0
    exponent = int(np.frexp(largest)[1]) - TOP
    return max(-LARGEST_EXPONENT, min(LARGEST_EXPONENT, exponent - exponent % 2))


def normalised(weight: Float32, exponent: int) -> Float32:
    """weight * 2^-exponent, exact."""
    scaled: Float32 = np.ldexp(weight, -exponent) if exponent else weight
    return scaled


def moved(tensor: Array, exponent: int, power: float) -> Array | None:
    """A float packed tensor times 2^(exponent * power); None where a value that means something would leave float16.

    Scales at the smallest belong to groups of zeros, or to groups that are nothing beside the rest of the matrix.
    """
    values = tensor.astype(np.float64)
    shifted = np.ldexp(values, int(exponent * power))
    if tensor.dtype != np.float16:
        return shifted.astype(tensor.dtype)
    if power == 1:
        resting = np.abs(values) <= SMALLEST_SCALE
        fits = resting | ((np.abs(shifted) >= SMALLEST_SCALE) & (np.abs(shifted) <= LARGEST_SCALE))
        return np.where(resting, values, shifted).astype(np.float16) if fits.all() else None
    return shifted.astype(np.float16) if float_fits(shifted) else None


def float_fits(values: Array) -> bool:
    """Whether float16 keeps plain values as well as values of any other size."""
    largest = float(np.abs(values).max(initial=0))
    return largest == 0 or SMALLEST_LARGEST <= largest <= LARGEST_SCALE
