"""Whole numbers of spikes in place of inputs, and weights rounded in groups, as SpikingBrain's W8ASpike form has them.

A spike train of n spikes stands for n times a threshold (arXiv 2509.05276, section 3.3); here the numbers are computed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from toolchain.model.offloaded import Conformed

SPIKES_PER_MEAN = 3.0
"""A threshold is the mean magnitude of a token's inputs over this (dynamic_sfr)."""

LEAST, MOST = 1e-5, 1e4
"""Thresholds and steps stay between."""


def rounded(x: Tensor, steps: Tensor) -> Tensor:
    """round(x / steps) steps, half to even; where gradients are asked for they pass as if nothing was rounded."""
    nearest = torch.round(x / steps) * steps
    return x + (nearest - x).detach() if x.requires_grad and torch.is_grad_enabled() else nearest


def between_limits(x: Tensor) -> Tensor:
    """No less than LEAST and no more than MOST."""
    least, most = x.new_tensor(LEAST), x.new_tensor(MOST)
    raised = torch.where(x < least, least, x)
    return torch.where(raised > most, most, raised)


def spikes(x: Tensor) -> Tensor:
    """Whole numbers of spikes times their threshold, mean |x| / 3 over the last axis; they have no upper limit."""
    return rounded(x, between_limits(x.abs().mean(-1, keepdim=True) / SPIKES_PER_MEAN))


def codes_of_8_bits(x: Tensor) -> Tensor:
    """x in 127 steps either way over the last axis."""
    return rounded(x, between_limits(x.abs().amax(-1, keepdim=True) / 127.0))


class GroupedLinear(Conformed, nn.Linear):
    """A product with weights round(w / s) s, s of a row and a group of inputs; codes have no limit, as released."""

    scales: Tensor

    def __init__(self, inputs: int, outputs: int, bias: bool, groups: int) -> None:
        super().__init__(inputs, outputs, bias=bias)
        if inputs % groups:
            raise SlmcError(f"{inputs} inputs do not divide into {groups} groups of weights")
        self.register_buffer("scales", torch.ones(outputs, groups, 1))

    def conformed(self, weight: Tensor) -> Tensor:
        grouped = weight.to(torch.float32).reshape(*self.scales.shape[:2], -1)
        return (torch.round(grouped / self.scales) * self.scales).reshape(weight.shape)

    def prepared(self, x: Tensor) -> Tensor:
        return x
