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
        self.names = ("left", "right") if fmt.rank else ("diagonal",)
        own = [nn.Parameter(torch.from_numpy(encoded.planes[name]).float()) for name in self.names]
        self.scales = nn.ParameterList([*self.integers.scales, *own])

    def forward(self) -> Tensor:
        own = list(self.scales)[-len(self.names) :]
        integers: Tensor = self.integers()
        return integers + (own[0] @ own[1] if self.fmt.rank else torch.diag(own[0]))

    @torch.no_grad()
    def stored(self) -> Encoded:
        own = list(self.scales)[-len(self.names) :]
        correction = {name: value.numpy().copy() for name, value in zip(self.names, own, strict=True)}
        halves = {name: half(value) for name, value in correction.items()} if self.fmt.rank else correction
        return self.fmt.store(self.integers.stored(), halves)


def learner_for(encoded: Encoded, weight: Tensor) -> Learner:
    """What learns in place of a stored matrix [rows, cols] whose format can learn."""
    return (Corrected if isinstance(format_named(encoded.format), CorrectedFormat) else Rounded)(encoded, weight)
