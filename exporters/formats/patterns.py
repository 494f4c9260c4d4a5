"""N:M patterns: which N of M inputs are kept, and the code that stands for it.

A field is the code of 8 inputs (M = 4, 8) or of 16 (M = 16): the patterns' ranks in order of their masks, input 0 being
bit 0, `ceil(log2 C(M, N))` bits each. Two patterns of 4 share a field, the first in its lower bits. Ranks of more than
MOST_RANK_BITS would need tables that push weights out of the cache; such a pattern is stored as its mask of 16 bits.
Eight fields of b bits are b bytes, least significant bits first.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from exporters.formats.bits import UInt8

PERIODS = (4, 8, 16)
MOST_RANK_BITS = 11

Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Patterns:
    """All ways to keep `kept` of `period` inputs."""

    kept: int
    period: int

    @property
    def width(self) -> int:
        """Inputs of a field."""
        return max(self.period, 8)

    @property
    def rank_bits(self) -> int:
        return math.ceil(math.log2(math.comb(self.period, self.kept)))

    @property
    def ranked(self) -> bool:
        """Whether fields hold ranks; else masks."""
        return self.rank_bits <= MOST_RANK_BITS

    @property
    def field_bits(self) -> int:
        return self.rank_bits * self.width // self.period if self.ranked else self.width

    @cached_property
    def masks(self) -> NDArray[np.uint16]:
        """Mask of every field, [2^field_bits]; fields that stand for nothing have the first pattern."""
        if not self.ranked:
            return np.arange(2**self.field_bits, dtype=np.uint16)
        places = itertools.combinations(range(self.period), self.kept)
        ranked = sorted(sum(1 << place for place in some) for some in places)
        single = np.full(2**self.rank_bits, ranked[0], np.uint16)
        single[: len(ranked)] = ranked
        if self.period == self.width:
            return single
        pairs: NDArray[np.uint16] = (single[None, :] | single[:, None] << np.uint16(self.period)).ravel()
        return pairs

    def encode(self, mask: Bool) -> UInt8:
        """Masks [..., inputs], a multiple of 8 fields, with exactly `kept` in every period, as bytes [..., bytes]."""
        lead = mask.shape[:-1]
        numbers = (mask.reshape(*lead, -1, self.width) * (1 << np.arange(self.width))).sum(-1)
        field_of = np.zeros(2**self.width, np.uint16)
        field_of[self.masks[::-1]] = np.arange(len(self.masks), dtype=np.uint16)[::-1]
        spread = field_of[numbers][..., None] >> np.arange(self.field_bits) & 1
        return np.packbits(spread.reshape(*lead, -1).astype(np.uint8), axis=-1, bitorder="little")

    def decode(self, stored: UInt8) -> Bool:
        """The masks [..., inputs] of bytes [..., bytes]."""
        bits = np.unpackbits(stored, axis=-1, bitorder="little").reshape(*stored.shape[:-1], -1, self.field_bits)
        fields = (bits.astype(np.int64) << np.arange(self.field_bits)).sum(-1)
        mask: Bool = ((self.masks[fields][..., None] >> np.arange(self.width)) & 1).astype(bool)
        return mask.reshape(*stored.shape[:-1], -1)


def completed(mask: Bool, patterns: Patterns) -> Bool:
    """A mask [rows, inputs] with at most `kept` per period, filled up to exactly that many from the left."""
    periods = mask.reshape(len(mask), -1, patterns.period)
    missing = patterns.kept - periods.sum(-1, keepdims=True)
    free = ~periods
    filled: Bool = periods | (free & (np.cumsum(free, -1) <= missing))
    return filled.reshape(mask.shape)


def largest(scores: NDArray[np.float32], patterns: Patterns) -> Bool:
    """The mask [rows, inputs] that keeps the `kept` highest scores of every period, the earlier one of equals."""
    periods = scores.reshape(len(scores), -1, patterns.period)
    order = np.argsort(-periods, axis=-1, kind="stable")[..., : patterns.kept]
    mask = np.zeros(periods.shape, bool)
    np.put_along_axis(mask, order, True, -1)
    return mask.reshape(scores.shape)
