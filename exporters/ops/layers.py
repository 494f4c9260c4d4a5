"""What surrounds stored matrices in a model: biases, and one table that serves look-up and logits."""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn

from exporters.formats.base import Encoded
from exporters.ops.modules import Scaled, stored_module


class Biased(nn.Module):
    """y = linear(x) + bias, the bias float32 [N]."""

    def __init__(self, linear: nn.Module, bias: Tensor) -> None:
        super().__init__()
        self.linear = linear
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x) + self.bias
        return y


def shared_look_up(linear: nn.Module, encoded: Encoded) -> nn.Module:
    """The embedding over the tensors of a stored linear layer: one memory, one initializer in the graph."""
    if isinstance(linear, Scaled):
        usual = dataclasses.replace(encoded, exponent=0)
        return Scaled(shared_look_up(linear.stored, usual), linear.exponent)
    table = stored_module(encoded, "embedding", shared=True)
    for name, tensor in linear.named_buffers():
        table.register_buffer(name, tensor)
    return table
