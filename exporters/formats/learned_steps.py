"""A table of integer steps for a matrix, by k-means over its weights in units of their group's scale.

The steps and the scales are found in turn: a group's scale is the one of some ranges with the least error on the
steps, and every step becomes the mean of what is rounded to it. Weights count by their importance and by the square of
their scale, for the error that counts is that of the weight.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exporters.formats.bits import UInt8
from exporters.formats.parts import Float32
from exporters.formats.scales import stored_scales

LARGEST_STEP = 128
"""Of either sign, that int8 holds: -128. A group's largest weight lands there, as on code 0 of integers."""

SAMPLE = 2**16
"""Weights that steps are learned from: 16 numbers need no more."""

ROUNDS, SWEEPS, RANGES = 3, 16, 9
_FINE = 4  # bins of a histogram per step


def even_steps(levels: int) -> tuple[int, ...]:
    """Those that integers of as many levels have."""
    return tuple(range(-LARGEST_STEP, LARGEST_STEP, 2 * LARGEST_STEP // levels))


def nearest_steps(weight: Float32, steps: Float32) -> UInt8:
    """The code of the nearest of rising integer steps for weights in units of their scale; half-way the larger one."""
    reach = 2 * LARGEST_STEP  # half-way between integers is a multiple of 1/2: every interval of 1/2 has one code
    middles = (steps[1:] + steps[:-1]) / 2
    by_halves = np.searchsorted(middles, np.arange(-reach, reach) / 2 + 0.25).astype(np.uint8)
    codes: UInt8 = by_halves[np.clip(np.floor(2 * weight), -reach, reach - 1).astype(np.intp) + reach]
    return codes


def learned_steps(grouped: Float32, importance: Float32, levels: int, least_share: float) -> Float32:
    """Rising integer steps [levels] for weights [rows, groups, group]; importance: of the inputs, [groups, group]."""
    rows = grouped[:: -(-grouped.size // SAMPLE)]
    size = grouped.shape[-1]
    weights = rows.reshape(-1, size)
    largest = np.float32(max(float(importance.max()), float(np.finfo(np.float32).tiny)))
    costs = np.broadcast_to(importance / largest, rows.shape).reshape(-1, size)
    steps = np.array(even_steps(levels), np.float32)
    for _ in range(ROUNDS):
        scales = _best_scales(weights, costs, steps, least_share)
        steps = _means(weights / scales, costs * np.square(scales), steps)
    return steps


def _best_scales(weights: Float32, costs: Float32, steps: Float32, least_share: float) -> Float32:
    """Of ranges of either sign the scales [groups, 1] with the least error of weights [groups, group]."""
    reach = np.abs(weights).max(-1, keepdims=True) / LARGEST_STEP
    best, least = stored_scales(reach), np.full(reach.shape, np.inf, np.float32)
    for share in np.linspace(1.0, least_share, RANGES, dtype=np.float32):
        for scales in (stored_scales(share * reach), stored_scales(-share * reach)):
            rounded = steps[nearest_steps(weights / scales, steps)] * scales
            error = (np.square(rounded - weights) * costs).sum(-1, keepdims=True)
            best, least = np.where(error < least, scales, best), np.minimum(error, least)
    return best


def _means(weights: Float32, costs: Float32, steps: Float32) -> Float32:
    """Lloyd's steps over a histogram of weights in units of their scale, then the nearest integers that rise."""
    reach = 2 * LARGEST_STEP * _FINE
    bins = np.clip(np.floor(weights * _FINE) + reach, 0, 2 * reach - 1).astype(np.int64).ravel()
    mass = np.bincount(bins, costs.ravel(), 2 * reach)
    moment = np.bincount(bins, (costs * weights).ravel(), 2 * reach)
    centres = ((np.arange(2 * reach) - reach + 0.5) / _FINE).astype(np.float32)
    means = steps.astype(np.float64)
    for _ in range(SWEEPS):
        codes = np.searchsorted((means[1:] + means[:-1]) / 2, centres, "right")
        held = np.bincount(codes, mass, len(steps))
        moved = np.bincount(codes, moment, len(steps)) / np.where(held > 0, held, 1)
        means = np.sort(np.where(held > 0, moved, means))
    return rising(means)


def rising(means: NDArray[np.generic]) -> Float32:
    """The nearest integers from -128 to 127, each at least one above the last."""
    steps, least = np.rint(means).astype(np.int64), np.arange(len(means))
    steps = np.maximum.accumulate(np.maximum(steps - least, -LARGEST_STEP)) + least
    most = LARGEST_STEP - 1 - least[::-1]
    whole: Float32 = np.minimum(steps, most).astype(np.float32)
    return whole
