"""How many of a layer's inputs are zero: what event-driven products can skip."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from toolchain.model.catalog import LoadedModel
from toolchain.model.text import Reading, first
from toolchain.quality.reference import stream_logits

ZEROS_TOKENS = 2048
"""Tokens of the calibration text that shares are counted on: a share of so many inputs is known well enough."""


class _Zeros:
    """Zeros among all inputs that a layer has seen."""

    def __init__(self) -> None:
        self.zeros = torch.zeros((), dtype=torch.int64)
        self.seen = 0

    def add(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.zeros += (inputs[0] == 0).sum()
        self.seen += inputs[0].numel()


def zero_shares(model: LoadedModel, ids: Reading) -> dict[str, float]:
    """Share of inputs that are zero, of every linear layer, over what the fp32 model reads."""
    counts: dict[str, _Zeros] = {}
    hooks = []
    for layer in model.tree.layers:
        if layer.kind == "linear":
            counts[layer.path] = _Zeros()
            module = model.module.get_submodule(layer.path)
            hooks.append(module.register_forward_pre_hook(counts[layer.path].add))
    try:
        for _ in stream_logits(model.forward, first(ids, ZEROS_TOKENS)):
            pass
    finally:
        for hook in hooks:
            hook.remove()
    return {path: int(count.zeros) / max(1, count.seen) for path, count in counts.items()}
