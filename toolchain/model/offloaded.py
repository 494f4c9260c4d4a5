"""Layers whose matrix stays on disk: it is read and widened for one product, and let go after it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Read = Callable[[], Tensor]
"""Gives a matrix [rows, cols] of floats of any width, the same at every call."""


def widened(read: Read) -> Tensor:
    """The matrix as float32. Nobody may keep it: how many of them are alive is what an offloaded model is about."""
    return read().to(torch.float32)


class _Product(torch.autograd.Function):
    """y = x W^T + b, which keeps no W for the gradient dx = dy W but reads it again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, read: Read, bias: Tensor | None) -> Tensor:
        ctx.read = read
        return functional.linear(x, widened(read), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        gradient: Tensor = gradients[0]
        inputs = gradient.reshape(-1, gradient.shape[-1]).mm(widened(ctx.read))
        return inputs.view(*gradient.shape[:-1], -1), None, None


class Offloaded(nn.Module):
    """A layer that asks `read` for its matrix whenever it needs it."""

    def __init__(self, read: Read) -> None:
        super().__init__()
        self.read = read

    @property
    def weight(self) -> Tensor:
        """The matrix [rows, cols], float32, read now."""
        return widened(self.read)


class Conformed(ABC):
    """A linear layer that computes with another matrix than the checkpoint's, and other inputs than it is given."""

    @abstractmethod
    def conformed(self, weight: Tensor) -> Tensor:
        """The matrix [rows, cols], float32, that a checkpoint's stands for."""

    @abstractmethod
    def prepared(self, x: Tensor) -> Tensor:
        """The inputs [..., cols] as they are multiplied."""


class OffloadedLinear(Offloaded):
    """y = x W^T + b; no gradient reaches W or b."""

    def __init__(self, read: Read, bias: Tensor | None) -> None:
        super().__init__(read)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Product.apply(x, self.read, self.bias)  # type: ignore[no-untyped-call]
        return y


class ConformedLinear(OffloadedLinear):
    """The same for a layer whose matrix and inputs are others."""

    def __init__(self, layer: Conformed, read: Read, bias: Tensor | None) -> None:
        super().__init__(lambda: layer.conformed(read()), bias)
        self.prepared = layer.prepared

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.prepared(x))


class OffloadedEmbedding(Offloaded):
    """Rows of a table [rows, cols], of which only those that are looked up are widened."""

    def forward(self, tokens: Tensor) -> Tensor:
        return functional.embedding(tokens, self.read()).to(torch.float32)


def offloaded(layer: nn.Module, read: Read, bias: Tensor | None) -> Offloaded:
    """What takes the place of a Linear or an Embedding."""
    if isinstance(layer, Conformed):
        return ConformedLinear(layer, read, bias)
    return OffloadedEmbedding(read) if isinstance(layer, nn.Embedding) else OffloadedLinear(read, bias)
