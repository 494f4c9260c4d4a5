"""The rows of a sequence that somebody asks for, as a torch operator: all of them, or the last ones."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("slmc::rows_from", mutates_args=())
def rows_from(x: Tensor, first: Tensor) -> Tensor:
    """x [B, T, K] from row `first` on, int64 [1]; negative ones count from the end."""
    return x[:, int(first) :].clone()


@rows_from.register_fake
def _(x: Tensor, first: Tensor) -> Tensor:
    rows = torch.library.get_ctx().new_dynamic_size()
    return x.new_empty(x.shape[0], rows, x.shape[2])
