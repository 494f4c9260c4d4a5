"""How much the loss cares about each output of each layer: the Fisher diagonal, by surrogate gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from toolchain.files.progress import StepProgress
from toolchain.model.catalog import LoadedModel
from toolchain.model.sentences import Sentences
from toolchain.model.text import Reading

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
    ids: Reading,
    seed: int,
    progress: StepProgress = lambda done, total: None,
) -> dict[str, Tensor]:
    """F = mean over tokens of (d loss / d output)^2, float32 [rows], for every layer ([cols] of an embedding,
    also of one that shares a linear layer's matrix).

    The loss is -log p of a token drawn from the model's own prediction (the true Fisher, not the empirical one), in
    nats, summed over tokens; spikes are differentiated by their surrogate. A layer whose weights change by E then
    costs about 1/2 sum_r F_r E_r H E_r^T nats per token, with H the mean of x x^T. Of a classifier a class is drawn for
    each sentence, F is the sum over tokens divided by sentences, and the cost is in nats per sentence.

    Args:
        ids: token ids int64 [n], or sentences.
        seed: of the drawn tokens or classes.
    """
    watched: dict[str, _OutputGradient] = {}
    hooks = []
    for layer in model.tree.layers:
        watched[layer.path] = _OutputGradient(layer.rows if layer.kind == "linear" else layer.cols)
        if layer.table:
            watched[layer.table] = _OutputGradient(layer.cols)
    for path, gradient in watched.items():
        hooks.append(model.module.get_submodule(path).register_forward_hook(gradient.watch))
    generator = torch.Generator().manual_seed(seed)
    state, read, predictions = model.forward.initial_state(0), 0, 0
    try:
        for piece, fresh in _pieces(ids, model.forward.context):
            state = model.forward.initial_state(len(piece)) if fresh else state
            logits, after = model.forward(piece, state)
            drawn = torch.multinomial(torch.softmax(logits.detach().flatten(0, 1), -1), 1, generator=generator)[:, 0]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), drawn, reduction="sum")
            loss.backward()  # type: ignore[no-untyped-call]
            state = [s.detach() for s in after]
            read, predictions = read + piece.numel(), predictions + len(drawn)
            progress(read, len(ids))
    finally:
        for hook in hooks:
            hook.remove()
    return {path: gradient.sum / predictions for path, gradient in watched.items()}


def _pieces(ids: Reading, context: int | None) -> Iterator[tuple[Tensor, bool]]:
    """What is read in one call [streams, time], and whether it begins anew: windows of a text, or whole sentences."""
    if isinstance(ids, Sentences):
        yield from ((ids.stacked(batch), True) for batch in ids.batches(STREAMS))
        return
    for text in _streams(ids, context):
        yield from ((piece, i == 0) for i, piece in enumerate(torch.split(text, WINDOW, 1)))


def _streams(ids: Tensor, context: int | None) -> list[Tensor]:
    """Token ids int64 [n] as texts [streams, time] that are read one after the other, each from an empty state.

    Without a context there is one text; with one, every row is a context of its own, and what fills none is left out.
    """
    if context is None:
        streams = min(STREAMS, max(1, len(ids) // WINDOW))
        return [ids[: len(ids) // streams * streams].view(streams, -1)]
    whole = ids[: len(ids) // context * context].view(-1, context) if len(ids) >= context else ids[None]
    return list(torch.split(whole, STREAMS))
