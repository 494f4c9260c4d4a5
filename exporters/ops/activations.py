"""Activations of 8 bits: the rounding that products with integer sums do, in torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from exporters.ops.activation_functions import ACTIVATION_GROUP


def rounded_activations(x: Tensor, group: int) -> Tensor:
    """x [..., K] rounded per token and block of inputs, to 127 steps either way of zero.

        step = max |x| / 127,    x -> step * rint(x / step)    within each block

    Blocks are min(group, 128) inputs from the start of each group, the last one of a group being what is left of it.
    """
    inputs = x.shape[-1]
    lead = x.shape[:-1]
    groups = functional.pad(x, (0, -inputs % group)).reshape(*lead, -(-inputs // group), group)
    length = min(group, ACTIVATION_GROUP)
    blocks = functional.pad(groups, (0, -group % length)).reshape(*groups.shape[:-1], -(-group // length), length)
    largest = blocks.abs().amax(-1, keepdim=True)
    inverse = torch.where(largest > 0, 127.0 / largest, 0.0)
    rounded = torch.round(blocks * inverse) * (largest / 127.0)
    return rounded.flatten(-2)[..., :group].flatten(-2)[..., :inputs]
