"""Weights and Hessians for tests of compression."""

from __future__ import annotations

import torch
from torch import Tensor

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named


def problem(rows: int, cols: int, seed: int = 0, tokens: int = 4000) -> tuple[Tensor, Tensor]:
    """A weight [rows, cols], and the hessian of inputs that lie mostly in a few directions."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(max(2, cols // 4), cols, generator=generator)
    x = torch.randn(tokens, len(mix), generator=generator) @ mix
    x += 0.3 * torch.randn(tokens, cols, generator=generator)
    return torch.randn(rows, cols, generator=generator), x.T @ x / tokens


def decoded(encoded: Encoded) -> Tensor:
    """The values [rows, cols] of an encoded matrix."""
    return torch.from_numpy(format_named(encoded.format).decode(encoded))
