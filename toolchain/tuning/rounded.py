"""A stored matrix that can learn: latent weights and scales behind the rounding, its pattern kept."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from exporters.formats.base import Encoded, Format
from exporters.formats.catalog import format_named
from exporters.formats.corrected import CorrectedFormat
from exporters.formats.decomposed import INLIERS, OUTLIERS, DecomposedFormat
from exporters.formats.float4 import STEPS, Float4Format
from exporters.formats.integer import Grid, IntegerFormat
from exporters.formats.nm import NmFormat
from exporters.formats.scales import exponent_of
from toolchain.compress.grids import storable
from toolchain.compress.values import round_values
from toolchain.tuning.learner import Learner

HALF_STEP = 0.49
"""A latent weight starts within its own rounding cell: the codes at the start are those that were stored."""

USUAL = 14
"""A matrix with an exponent learns as one whose largest weight is in [2^-3, 2^-1): rates are meant for such ones."""

Values = IntegerFormat | Float4Format


@dataclass(frozen=True)
class Stored:
    """One part of a stored matrix.

    mask: which weights are its own, bool [rows, cols]; scales: float32 [rows, groups], the exponent left out; zeros:
    likewise, or None for the format's own.
    """

    values: Values
    mask: Tensor
    scales: Tensor
    zeros: Tensor | None = None


def stored_parts(encoded: Encoded) -> list[Stored]:
    """The parts of a stored matrix, one but for decomposed formats; none if its format cannot learn."""
    fmt = format_named(encoded.format)
    if isinstance(fmt, DecomposedFormat):
        outliers, inliers = (
            _part(part.values, fmt.part(encoded, prefix), part)
            for part, prefix in ((fmt.outliers, OUTLIERS), (fmt.inliers, INLIERS))
        )
        # A period with fewer weights than it may keep is filled up with zeros, which may lie on the other part's.
        used = torch.from_numpy(fmt.inliers.decode(fmt.part(encoded, INLIERS))) != 0
        outliers = replace(outliers, mask=outliers.mask & ~used)
        return [outliers, replace(inliers, mask=inliers.mask & ~outliers.mask)]
    if isinstance(fmt, NmFormat):
        return [_part(fmt.values, encoded, fmt)]
    if isinstance(fmt, CorrectedFormat):
        return [_part(fmt.values, fmt.integers(encoded), None)]
    if isinstance(fmt, IntegerFormat | Float4Format):
        return [_part(fmt, encoded, None)]
    return []


def _part(values: Values, encoded: Encoded, pattern: NmFormat | None) -> Stored:
    mask = torch.ones(encoded.shape, dtype=torch.bool) if pattern is None else torch.from_numpy(pattern.mask(encoded))
    zeros = encoded.planes.get("zeros")
    return Stored(
        values, mask, torch.from_numpy(encoded.planes["scales"].astype("float32")),
        None if zeros is None else torch.from_numpy(zeros.astype("float32")),
    )  # fmt: skip


def shift_of(encoded: Encoded) -> int:
    """The power of two that a stored matrix learns without: 0, but for one with an exponent."""
    return encoded.exponent + USUAL if encoded.exponent else 0


class Rounded(Learner):
    """w = scale (clamp(round(latent / scale) + zero) - zero) in each part, as if nothing were rounded to a gradient.

    The gradient passes the rounding unchanged (straight-through, Bengio et al., arXiv 1308.3432) and stops where a code
    is clamped; that of a scale follows from the same formula (LSQ, Esser et al., arXiv 1902.08153). Zeros and patterns
    stay, and what a pattern leaves out learns nothing. Parameters are 2^shift times smaller than the weight.
    """

    def __init__(self, encoded: Encoded, weight: Tensor) -> None:
        """encoded: in a format that can learn; weight: what it stands for, float32 [rows, cols]."""
        super().__init__()
        self.fmt: Format = format_named(encoded.format)
        self.cols = encoded.shape[1]
        self.shift = shift_of(encoded)
        moved = float(2.0 ** (encoded.exponent - self.shift))
        self.parts = [replace(part, scales=part.scales * moved) for part in stored_parts(encoded)]
        self.scales = nn.ParameterList([nn.Parameter(part.scales) for part in self.parts])
        stored = torch.from_numpy(self.fmt.values_of(encoded)) * moved
        weight = weight * 2.0**-self.shift
        reach = torch.zeros_like(stored)
        for part in self.parts:
            reach += part.mask * HALF_STEP * self._spread(part.scales, part.values).abs()
        self.latent = nn.Parameter(stored + torch.maximum(torch.minimum(weight - stored, reach), -reach))

    def _spread(self, groups: Tensor, values: Values) -> Tensor:
        """[rows, groups] as [rows, cols]."""
        size = values.group_size(self.cols) if isinstance(values, IntegerFormat) else values.group
        return groups.repeat_interleave(size, 1)[:, : self.cols]

    def _zero(self, part: Stored) -> Tensor | float:
        if part.zeros is not None:
            return self._spread(part.zeros, part.values)
        return float(part.values.default_zero) if isinstance(part.values, IntegerFormat) else 0.0

    def forward(self) -> Tensor:
        """The weight [rows, cols] that would be stored now, but for the rounding of its scales to float16."""
        weight = torch.zeros_like(self.latent)
        for part, scales in zip(self.parts, self.scales, strict=True):
            spread = self._spread(scales, part.values)
            weight = weight + part.mask * self._steps(part, self.latent / spread) * spread
        return weight * 2.0**self.shift if self.shift else weight

    def _steps(self, part: Stored, steps: Tensor) -> Tensor:
        """Steps of a grid as it stores them, differentiable where nothing is clamped."""
        if isinstance(part.values, IntegerFormat):
            zero = self._zero(part)
            clamped = (steps + zero).clamp(0, part.values.levels - 1) - zero
            return clamped + (clamped.round() - clamped).detach()
        top = float(STEPS[7])
        clamped = steps.clamp(-top, top)
        with torch.no_grad():
            rounded = round_values(clamped, torch.ones(()), part.values)[1]
        return clamped + (rounded - clamped).detach()

    @torch.no_grad()
    def stored(self) -> Encoded:
        """The matrix in its format, on scales as float16 keeps them."""
        exponent = self.shift + exponent_of(self.latent.numpy())
        return self.fmt.settled(self.normalised(exponent), exponent)

    @torch.no_grad()
    def normalised(self, exponent: int) -> Encoded:
        """The matrix without a power of two, in its format."""
        moved = float(2.0 ** (self.shift - exponent))
        pieces = [self._codes(part, scales, moved) for part, scales in zip(self.parts, self.scales, strict=True)]
        if isinstance(self.fmt, DecomposedFormat):
            return self.fmt.store(pieces[0], pieces[1])
        if isinstance(self.fmt, NmFormat):
            return self.fmt.store(*pieces[0])
        assert isinstance(self.fmt, IntegerFormat | Float4Format)
        return self.fmt.store(*pieces[0][1:])

    def _codes(self, part: Stored, scales: Tensor, moved: float) -> tuple[np.ndarray, np.ndarray, Grid]:
        """Mask, codes [rows, cols] and grid of one part, everything `moved` times as large as it learns."""
        scales = storable(scales * moved)
        steps = self.latent * moved / self._spread(scales, part.values)
        if isinstance(part.values, IntegerFormat):
            codes = (steps.round() + self._zero(part)).clamp(0, part.values.levels - 1)
        else:
            codes = round_values(steps, torch.ones(()), part.values)[0]
        zeros = None if part.zeros is None else part.zeros.numpy()
        return part.mask.numpy(), codes.to(torch.uint8).numpy(), Grid(scales.numpy(), zeros)
