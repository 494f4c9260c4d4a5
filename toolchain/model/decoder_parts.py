"""Small parts of decoders: activations, norms, norms of heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

NormKind = Literal["rms", "layer"]
"""RMSNorm (arXiv 1910.07467) with a weight, or LayerNorm with weight and bias."""

_gelu_tanh = partial(functional.gelu, approximate="tanh")


def squared_relu(x: Tensor) -> Tensor:
    """relu(x)^2 (arXiv 2109.08668)."""
    return torch.relu(x).square()


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu, "swish": functional.silu, "gelu": functional.gelu, "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh, "relu": torch.relu, "relu2": squared_relu,
}  # fmt: skip
"""By the names that config.json uses."""


def norm_of(kind: NormKind, width: int, epsilon: float) -> nn.Module:
    """A norm over the last dimension."""
    return nn.RMSNorm(width, eps=epsilon) if kind == "rms" else nn.LayerNorm(width, eps=epsilon)


class HeadNorm(nn.Module):
    """A norm over the channels of every head of x [B, T, heads * size].

    each: so many heads have a weight of their own and no bias; None: all share one norm.
    """

    def __init__(self, kind: NormKind, size: int, epsilon: float, each: int | None) -> None:
        super().__init__()
        self.size = size
        if each is None:
            self.norm = norm_of(kind, size, epsilon)
        else:
            plain = nn.RMSNorm if kind == "rms" else nn.LayerNorm
            self.norm = plain(size, eps=epsilon, elementwise_affine=False)
            self.weight = nn.Parameter(torch.ones(each, size))
        self.each = each is not None

    def forward(self, x: Tensor) -> Tensor:
        heads: Tensor = self.norm(x.view(*x.shape[:2], -1, self.size))
        return (heads * self.weight if self.each else heads).flatten(2)
