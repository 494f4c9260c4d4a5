"""A fake-quantized weight: trainable latent weights and scales behind rounding. Its sparsity pattern is fixed."""

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
"""A latent weight starts at most this many steps from its code, so that the first codes are the stored ones."""

USUAL = 2.0**-10, 2.0**6
"""Learning rates are meant for matrices whose largest weight lies between these."""

BELOW_TOP = 14
"""Other matrices are scaled for training until their largest weight is in [2^-3, 2^-1)."""


class _Part:
    """One part of a stored matrix as tensors."""

    def __init__(self, part: StoredPart) -> None:
        self.values = part.values
        self.mask, self.scales = torch.from_numpy(part.mask), torch.from_numpy(part.scales)
        self.zeros = None if part.zeros is None else torch.from_numpy(part.zeros)


def shift_of(encoded: Encoded) -> int:
    """The binary exponent that is factored out in training: 0 for a matrix of usual size, otherwise even."""
    weight = format_named(encoded.format).decode(encoded)
    least, most = USUAL
    usual = least <= float(np.abs(weight).max(initial=0)) <= most or not weight.any()
    return 0 if usual else exponent_of(weight) + BELOW_TOP


class FakeQuantizedWeight(WeightParametrization):
    """w = scale (clamp(round(latent / scale) + zero) - zero) in each part.

    The gradient passes the rounding unchanged (straight-through, Bengio et al., arXiv 1308.3432) and is zero where a
    code is clamped. The gradient of a scale follows from the same formula (LSQ, Esser et al., arXiv 1902.08153). Zero
    points and patterns are fixed, and pruned weights are not trained. Parameters are 2^shift times smaller than the
    weight.
    """

    def __init__(self, encoded: Encoded, weight: Tensor) -> None:
        """encoded: in a format that can be trained; weight: the original matrix, float32 [rows, cols]."""
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
        """Repeat [rows, groups] to [rows, cols]."""
        return groups.repeat_interleave(values.group_size(self.cols), 1)[:, : self.cols]

    def _zero(self, part: _Part) -> Tensor | float:
        return float(part.values.default_zero) if part.zeros is None else self._spread(part.zeros, part.values)

    def forward(self) -> Tensor:
        """The weight [rows, cols] as it would be stored, except that scales are not rounded to float16."""
        weight = torch.zeros_like(self.latent)
        for part, scales in zip(self.parts, self.scales, strict=True):
            spread = self._spread(scales, part.values)
            weight = weight + part.mask * self._steps(part, self.latent / spread) * spread
        return weight * 2.0**self.shift if self.shift else weight

    def _steps(self, part: _Part, steps: Tensor) -> Tensor:
        """Round steps to the grid; the gradient is 1 where nothing is clamped."""
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
        """The current matrix in its format, with float16 scales."""
        exponent = self.shift + exponent_of(self.latent.numpy())
        return self.fmt.settled(self.normalised(exponent), exponent)

    @torch.no_grad()
    def normalised(self, exponent: int) -> Encoded:
        """The matrix divided by 2^exponent, in its format."""
        moved = float(2.0 ** (self.shift - exponent))
        pieces = [self._codes(part, scales, moved) for part, scales in zip(self.parts, self.scales, strict=True)]
        return self.fmt.join(pieces)

    def _codes(self, part: _Part, scales: Tensor, moved: float) -> Piece:
        """Mask, codes [rows, cols] and grid of one part; the parameters are multiplied by `moved`."""
        scales = storable(scales * moved)
        steps = self.latent * moved / self._spread(scales, part.values)
        if part.values.table is None:
            codes = (steps.round() + self._zero(part)).clamp(0, part.values.levels - 1)
        else:
            codes = round_values(steps, torch.ones(()), part.values)[0]
        zeros = None if part.zeros is None else part.zeros.numpy()
        return part.mask.numpy(), codes.to(torch.uint8).numpy(), Grid(scales.numpy(), zeros)
