"""What calibration sees: the hessian of every linear layer's inputs over a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from toolchain.files.progress import StepProgress
from toolchain.model.catalog import LoadedModel
from toolchain.model.text import Reading
from toolchain.model.tree import Layer
from toolchain.quality.reference import stream_logits

Opened = Callable[[], AbstractContextManager[Tensor]]
"""Opens a tensor that may lie on disk, to be changed in place."""


class _HessianSum:
    """Sum of x x^T over tokens, [cols, cols]."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.tokens = 0

    def add(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0].reshape(-1, inputs[0].shape[-1])
        with self.opened() as total:
            total.addmm_(x.t(), x)
        self.tokens += x.shape[0]


def linear_layers(model: LoadedModel) -> list[Layer]:
    """The layers whose inputs have hessians."""
    return [layer for layer in model.tree.layers if layer.kind == "linear"]


def input_hessians(
    model: LoadedModel, ids: Reading, progress: StepProgress = lambda done, total: None
) -> dict[str, Tensor]:
    """H = mean of x x^T, float32 [cols, cols], for every linear layer, over what the fp32 model reads."""
    hessians = {layer.path: torch.zeros(layer.cols, layer.cols) for layer in linear_layers(model)}
    accumulate_hessians(model, ids, {path: _held(total) for path, total in hessians.items()}, progress)
    return hessians


def _held(total: Tensor) -> Opened:
    return lambda: nullcontext(total)


def accumulate_hessians(model: LoadedModel, ids: Reading, zeros: Mapping[str, Opened], progress: StepProgress) -> None:
    """The same into tensors that are zero at first, of which one is open at a time."""
    hessians = {path: _HessianSum(opened) for path, opened in zeros.items()}
    hooks = [model.module.get_submodule(path).register_forward_pre_hook(m.add) for path, m in hessians.items()]
    try:
        for start, _ in stream_logits(model.forward, ids):
            progress(start, len(ids))
    finally:
        for hook in hooks:
            hook.remove()
    for hessian in hessians.values():
        with hessian.opened() as total:
            total /= max(1, hessian.tokens)
