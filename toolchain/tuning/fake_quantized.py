"""A fake-quantized weight: trainable latent weights and scales behind rounding. Its sparsity pattern is fixed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from exporters.formats.base import Encoded
from exporters.formats.parts import Grid, Piece, StoredPart, Values
from toolchain.compress.grids import storable
from toolchain.compress.values import round_values
from toolchain.tuning.parametrization import HALF_STEP, LatentWeight


class _Part:
    """One part of a stored matrix as tensors."""

    def __init__(self, part: StoredPart) -> None:
        self.values = part.values
        self.mask, self.scales = torch.from_numpy(part.mask), torch.from_numpy(part.scales)
        self.zeros = None if part.zeros is None else torch.from_numpy(part.zeros)


class FakeQuantizedWeight(LatentWeight):
    """w = scale (clamp(round(latent / scale) + zero) - zero) in each part.

    The gradient passes the rounding unchanged (straight-through, Bengio et al., arXiv 1308.3432) and is zero where a
    code is clamped. The gradient of a scale follows from the same formula (LSQ, Esser et al., arXiv 1902.08153). Zero
    points and patterns are fixed, and pruned weights are not trained. Parameters are 2^shift times smaller than the
    weight.
    """

    def __init__(self, encoded: Encoded, weight: Tensor) -> None:
        """encoded: in a format that can be trained; weight: the original matrix, float32 [rows, cols]."""
        super().__init__(encoded)
        moved = self.moved
        self.parts = [_Part(part) for part in self.fmt.split(encoded)]
        self.scales = nn.ParameterList([nn.Parameter(part.scales * moved) for part in self.parts])
        reach = torch.zeros(encoded.shape)
        for part, scales in zip(self.parts, self.scales, strict=True):
            reach += part.mask * HALF_STEP * self._spread(scales.detach(), part.values).abs()
        self.latent = self._started(encoded, weight, reach)

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
    def normalised(self, exponent: int) -> Encoded:
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
