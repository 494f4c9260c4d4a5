"""How active a model is: which share of every layer's inputs is not zero on a text, and whether they are spikes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from targets.cpus.energy import Activity
from toolchain.model.catalog import LoadedModel
from toolchain.model.text import Reading
from toolchain.quality.reference import stream_logits


class _Counter:
    """Nonzero inputs and all inputs of one layer; whether those of every product seen so far are spikes."""

    def __init__(self) -> None:
        self.nonzero = self.total = 0
        self.spikes = True

    def add(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x: Tensor = inputs[0]
        self.nonzero += int(torch.count_nonzero(x))
        self.total += x.numel()
        size = x.abs()
        self.spikes = self.spikes and bool(((x == 0) | (size == size.amax(-1, keepdim=True))).all())


def input_activity(model: LoadedModel, ids: Reading) -> dict[str, Activity]:
    """Activity of every linear layer's inputs over what the fp32 model reads, by layer path."""
    counters: dict[str, _Counter] = {}
    hooks = []
    for layer in model.tree.layers:
        if layer.kind == "linear":
            counters[layer.path] = _Counter()
            hooks.append(model.module.get_submodule(layer.path).register_forward_pre_hook(counters[layer.path].add))
    try:
        for _ in stream_logits(model.forward, ids):
            pass
    finally:
        for hook in hooks:
            hook.remove()
    return {path: Activity(c.nonzero / max(1, c.total), c.spikes) for path, c in counters.items()}
