"""What calibration sees: the second moment of every linear layer's inputs over a text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from toolchain.evidence.quality import stream_logits
from toolchain.model.catalog import LoadedModel
from toolchain.model.text import Reading


class _Moment:
    """Sum of x x^T over tokens, [cols, cols]."""

    def __init__(self, cols: int) -> None:
        self.sum = torch.zeros(cols, cols)
        self.tokens = 0

    def add(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0].reshape(-1, inputs[0].shape[-1])
        self.sum.addmm_(x.t(), x)
        self.tokens += x.shape[0]


def input_moments(
    model: LoadedModel, ids: Reading, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Tensor]:
    """H = mean of x x^T, float32 [cols, cols], for every linear layer, over what the fp32 model reads."""
    moments: dict[str, _Moment] = {}
    hooks = []
    for layer in model.tree.layers:
        if layer.kind == "linear":
            moments[layer.path] = _Moment(layer.cols)
            module = model.module.get_submodule(layer.path)
            hooks.append(module.register_forward_pre_hook(moments[layer.path].add))
    try:
        for start, _ in stream_logits(model.forward, ids):
            progress(start, len(ids))
    finally:
        for hook in hooks:
            hook.remove()
    return {path: m.sum / max(1, m.tokens) for path, m in moments.items()}
