"""Parametrizations of a layer's weight for tuning: modules that compute the weight from trainable parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from exporters.formats.base import Encoded
from exporters.formats.dense import FP16


class WeightParametrization(nn.Module):
    """Computes a weight [rows, cols] from the parameters `latent` and `scales` (which may be empty)."""

    latent: nn.Parameter
    scales: nn.ParameterList

    def stored(self) -> Encoded:
        """The current matrix in its format."""
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
