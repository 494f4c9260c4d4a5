"""A corrected matrix that learns: integers behind their rounding, and the diagonal or thin factors beside them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from exporters.formats.corrected import CorrectedFormat, half
from toolchain.tuning.learner import Learner
from toolchain.tuning.rounded import Rounded


class Corrected(Learner):
    """w = rounded integers + diag(d), or + left right; what corrects learns at the rate of scales, unrounded."""

    def __init__(self, encoded: Encoded, weight: Tensor) -> None:
        """encoded: in a corrected format; weight: what it stands for, float32 [rows, cols]."""
        super().__init__()
        fmt = format_named(encoded.format)
        assert isinstance(fmt, CorrectedFormat)
        self.fmt = fmt
        self.integers = Rounded(fmt.integers(encoded), weight - torch.from_numpy(fmt.correction(encoded)))
        self.latent = self.integers.latent
        self.correction = nn.ParameterList([torch.from_numpy(encoded.planes[name]).float() for name in fmt.planes])
        self.scales = nn.ParameterList([*self.integers.scales, *self.correction])

    def forward(self) -> Tensor:
        integers: Tensor = self.integers()
        first, *second = self.correction
        return integers + (first @ second[0] if second else torch.diag(first))

    @torch.no_grad()
    def stored(self) -> Encoded:
        learned = {n: p.numpy().copy() for n, p in zip(self.fmt.planes, self.correction, strict=True)}
        return self.fmt.store(self.integers.stored(), {n: half(p) if self.fmt.rank else p for n, p in learned.items()})


def learner_for(encoded: Encoded, weight: Tensor) -> Learner:
    """What learns in place of a stored matrix [rows, cols] whose format can learn."""
    corrected = isinstance(format_named(encoded.format), CorrectedFormat)
    return Corrected(encoded, weight) if corrected else Rounded(encoded, weight)
