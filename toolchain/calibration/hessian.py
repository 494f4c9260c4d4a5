"""The Hessian of every linear layer: the second moment of its inputs over a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from toolchain.calibration.observe import observe_inputs
from toolchain.files.progress import StepProgress
from toolchain.model.catalog import LoadedModel
from toolchain.model.text import Reading
from toolchain.model.tree import Layer

Opened = Callable[[], AbstractContextManager[Tensor]]
"""Opens a tensor for changes in place. The tensor may be on disk."""


class _HessianSum:
    """The sum of x x^T over tokens, [cols, cols]."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.tokens = 0

    def add(self, x: Tensor) -> None:
        x = x.reshape(-1, x.shape[-1])
        with self.opened() as total:
            total.addmm_(x.t(), x)
        self.tokens += x.shape[0]


def linear_layers(model: LoadedModel) -> list[Layer]:
    """The linear layers of a model. Only they have Hessians."""
    return [layer for layer in model.tree.layers if layer.kind == "linear"]


def input_hessians(
    model: LoadedModel, ids: Reading, progress: StepProgress = lambda done, total: None
) -> dict[str, Tensor]:
    """H = mean of x x^T over tokens, float32 [cols, cols], for every linear layer, by layer path.

    Args:
        ids: token ids int64 [n], or sentences, which the fp32 model reads.
        progress: called with the tokens read so far and the total.
    """
    hessians = {layer.path: torch.zeros(layer.cols, layer.cols) for layer in linear_layers(model)}
    accumulate_hessians(model, ids, {path: _in_memory(total) for path, total in hessians.items()}, progress)
    return hessians


def _in_memory(total: Tensor) -> Opened:
    return lambda: nullcontext(total)


def accumulate_hessians(model: LoadedModel, ids: Reading, zeros: Mapping[str, Opened], progress: StepProgress) -> None:
    """Like `input_hessians`, but into given tensors of zeros. Only one tensor is open at a time."""
    sums = {path: _HessianSum(opened) for path, opened in zeros.items()}
    observe_inputs(model, ids, sums, progress)
    for each in sums.values():
        with each.opened() as total:
            total /= max(1, each.tokens)
