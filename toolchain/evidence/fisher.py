"""How much the loss cares about each output of each layer: the Fisher diagonal, by surrogate gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from toolchain.model.catalog import LoadedModel

STREAMS = 8
"""Pieces of the text that are read side by side, each from an empty state."""

WINDOW = 128
"""Gradients reach back this many tokens."""


class _OutputGradient:
    """Sum over tokens of the squared gradient of every output of a layer, [rows]."""

    def __init__(self, rows: int) -> None:
        self.sum = torch.zeros(rows)

    def watch(self, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if not output.requires_grad:
            output = output.requires_grad_()
        output.register_hook(self.add)  # type: ignore[no-untyped-call]
        return output

    def add(self, gradient: Tensor) -> None:
        self.sum += gradient.reshape(-1, gradient.shape[-1]).square().sum(0)


def output_fisher(
    model: LoadedModel,
    ids: Tensor,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Tensor]:
    """F = mean over tokens of (d loss / d output)^2, float32 [rows], for every layer ([cols] of an embedding).

    The loss is -log p of a token drawn from the model's own prediction (the true Fisher, not the empirical one), in
    nats, summed over tokens; spikes are differentiated by their surrogate. A layer whose weights change by E then
    costs about 1/2 sum_r F_r E_r H E_r^T nats per token, with H the mean of x x^T.

    Args:
        ids: token ids int64 [n].
        seed: of the drawn tokens.
    """
    watched: dict[str, _OutputGradient] = {}
    hooks = []
    for layer in model.tree.layers:
        watched[layer.path] = _OutputGradient(layer.rows if layer.kind == "linear" else layer.cols)
        hooks.append(model.module.get_submodule(layer.path).register_forward_hook(watched[layer.path].watch))
    streams = min(STREAMS, max(1, len(ids) // WINDOW))
    text = ids[: len(ids) // streams * streams].view(streams, -1)
    generator = torch.Generator().manual_seed(seed)
    state, tokens = model.forward.initial_state(streams), 0
    try:
        for start in range(0, text.shape[1], WINDOW):
            piece = text[:, start : start + WINDOW]
            logits, after = model.forward(piece, state)
            drawn = torch.multinomial(torch.softmax(logits.detach().flatten(0, 1), -1), 1, generator=generator)[:, 0]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), drawn, reduction="sum")
            loss.backward()  # type: ignore[no-untyped-call]
            state = [s.detach() for s in after]
            tokens += piece.numel()
            progress(start + WINDOW, text.shape[1])
    finally:
        for hook in hooks:
            hook.remove()
    return {path: gradient.sum / tokens for path, gradient in watched.items()}
