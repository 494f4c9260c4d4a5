"""Parametrizations of a layer's weight for tuning: modules that compute the weight from trainable parameters."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from exporters.formats.dense import FP16
from exporters.formats.scales import exponent_of

HALF_STEP = 0.49
"""A latent weight starts at most this many steps from its code, so that the first codes are the stored ones."""

USUAL = 2.0**-10, 2.0**6
"""Learning rates are meant for matrices whose largest weight lies between these."""

BELOW_TOP = 14
"""Other matrices are scaled for training until their largest weight is in [2^-3, 2^-1)."""


class WeightParametrization(nn.Module):
    """Computes a weight [rows, cols] from the parameters `latent` and `scales` (which may be empty)."""

    latent: nn.Parameter
    scales: nn.ParameterList

    def stored(self) -> Encoded:
        """The current matrix in its format."""
        raise NotImplementedError


class LatentWeight(WeightParametrization):
    """Latent weights that are rounded to the grids of a format.

    Attributes:
        fmt, cols: the format, and inputs of the matrix.
        shift: the parameters are 2^shift times smaller than the weight.
        moved: what a stored matrix is multiplied with to become parameters.
    """

    def __init__(self, encoded: Encoded) -> None:
        super().__init__()
        self.fmt, self.cols, self.shift = format_named(encoded.format), encoded.shape[1], shift_of(encoded)
        self.moved = float(2.0 ** (encoded.exponent - self.shift))

    def _exactly(self, encoded: Encoded) -> Tensor:
        """The stored values as parameters, [rows, cols]."""
        return torch.from_numpy(self.fmt.values_of(encoded)) * self.moved

    def _started(self, encoded: Encoded, weight: Tensor, reach: Tensor) -> nn.Parameter:
        """The original weight, but at most `reach` [rows, cols] from the stored one."""
        stored = self._exactly(encoded)
        apart = weight * 2.0**-self.shift - stored
        return nn.Parameter(stored + torch.maximum(torch.minimum(apart, reach), -reach))

    @torch.no_grad()
    def stored(self) -> Encoded:
        """The current matrix in its format, with float16 scales."""
        exponent = self.shift + exponent_of(self.latent.numpy())
        return self.fmt.settled(self.normalised(exponent), exponent)

    def normalised(self, exponent: int) -> Encoded:
        """The matrix divided by 2^exponent, in its format."""
        raise NotImplementedError


class MaskedWeight(WeightParametrization):
    """A pruned matrix in float16 whose kept weights are trained."""

    def __init__(self, weight: Tensor, mask: Tensor) -> None:
        """weight [rows, cols] float32; mask bool [rows, cols]."""
        super().__init__()
        self.latent, self.scales = nn.Parameter(weight * mask), nn.ParameterList()
        self.mask = mask

    def forward(self) -> Tensor:
        return self.latent * self.mask

    @torch.no_grad()
    def stored(self) -> Encoded:
        return FP16.encode((self.latent * self.mask).numpy())


def shift_of(encoded: Encoded) -> int:
    """The binary exponent that is factored out in training: 0 for a matrix of usual size, otherwise even."""
    weight = format_named(encoded.format).decode(encoded)
    least, most = USUAL
    usual = least <= float(np.abs(weight).max(initial=0)) <= most or not weight.any()
    return 0 if usual else exponent_of(weight) + BELOW_TOP
