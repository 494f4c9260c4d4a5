"""A stored matrix that can learn: latent weights and scales behind the rounding, its pattern kept."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from exporters.formats.parts import Grid, Piece, StoredPart, Values
from exporters.formats.scales import exponent_of
from toolchain.compress.grids import storable
from toolchain.compress.values import round_values
from toolchain.tuning.parametrization import WeightParametrization

HALF_STEP = 0.49
"""A latent weight starts within its own rounding cell: the codes at the start are those that were stored."""

USUAL = 2.0**-10, 2.0**6
"""Learning rates are meant for matrices whose largest weight lies between these."""

BELOW_TOP = 14
"""Others learn as if it were in [2^-3, 2^-1)."""


class _Part:
    """A part of a stored matrix as tensors."""

    def __init__(self, part: StoredPart) -> None:
        self.values = part.values
        self.mask, self.scales = torch.from_numpy(part.mask), torch.from_numpy(part.scales)
        self.zeros = None if part.zeros is None else torch.from_numpy(part.zeros)


def shift_of(encoded: Encoded) -> int:
    """The power of two that a stored matrix learns without: 0 for one of usual size; even."""
    weight = format_named(encoded.format).decode(encoded)
    least, most = USUAL
    usual = least <= float(np.abs(weight).max(initial=0)) <= most or not weight.any()
    return 0 if usual else exponent_of(weight) + BELOW_TOP


class FakeQuantizedWeight(WeightParametrization):
    """w = scale (clamp(round(latent / scale) + zero) - zero) in each part, as if nothing were rounded to a gradient.

    The gradient passes the rounding unchanged (straight-through, Bengio et al., arXiv 1308.3432) and stops where a code
    is clamped; that of a scale follows from the same formula (LSQ, Esser et al., arXiv 1902.08153). Zeros and patterns
    stay, and what a pattern leaves out learns nothing. Parameters are 2^shift times smaller than the weight.
    """

    def __init__(self, encoded: Encoded, weight: Tensor) -> None:
        """encoded: in a format that can learn; weight: what it stands for, float32 [rows, cols]."""
        super().__init__()
        self.fmt = format_named(encoded.format)
        self.cols = encoded.shape[1]
        self.shift = shift_of(encoded)
        moved = float(2.0 ** (encoded.exponent - self.shift))
        self.parts = [_Part(part) for part in self.fmt.split(encoded)]
        self.scales = nn.ParameterList([nn.Parameter(part.scales * moved) for part in self.parts])
        stored = torch.from_numpy(self.fmt.values_of(encoded)) * moved
        weight = weight * 2.0**-self.shift
        reach = torch.zeros_like(stored)
        for part, scales in zip(self.parts, self.scales, strict=True):
            reach += part.mask * HALF_STEP * self._spread(scales.detach(), part.values).abs()
        self.latent = nn.Parameter(stored + torch.maximum(torch.minimum(weight - stored, reach), -reach))

    def _spread(self, groups: Tensor, values: Values) -> Tensor:
        """[rows, groups] as [rows, cols]."""
        return groups.repeat_interleave(values.group_size(self.cols), 1)[:, : self.cols]

    def _zero(self, part: _Part) -> Tensor | float:
        return float(part.values.default_zero) if part.zeros is None else self._spread(part.zeros, part.values)

    def forward(self) -> Tensor:
        """The weight [rows, cols] that would be stored now, but for the rounding of its scales to float16."""
        weight = torch.zeros_like(self.latent)
        for part, scales in zip(self.parts, self.scales, strict=True):
            spread = self._spread(scales, part.values)
            weight = weight + part.mask * self._steps(part, self.latent / spread) * spread
        return weight * 2.0**self.shift if self.shift else weight

    def _steps(self, part: _Part, steps: Tensor) -> Tensor:
        """Steps of a grid as it stores them, differentiable where nothing is clamped."""
        if part.values.table is None:
            zero = self._zero(part)
            clamped = (steps + zero).clamp(0, part.values.levels - 1) - zero
            return clamped + (clamped.round() - clamped).detach()
        top = float(part.values.table.max())
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
        return self.fmt.join(pieces)

    def _codes(self, part: _Part, scales: Tensor, moved: float) -> Piece:
        """Mask, codes [rows, cols] and grid of one part, everything `moved` times as large as it learns."""
        scales = storable(scales * moved)
        steps = self.latent * moved / self._spread(scales, part.values)
        if part.values.table is None:
            codes = (steps.round() + self._zero(part)).clamp(0, part.values.levels - 1)
        else:
            codes = round_values(steps, torch.ones(()), part.values)[0]
        zeros = None if part.zeros is None else part.zeros.numpy()
        return part.mask.numpy(), codes.to(torch.uint8).numpy(), Grid(scales.numpy(), zeros)
