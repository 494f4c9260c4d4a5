"""The diagonal of the Fisher information of every layer's outputs. Spikes have surrogate gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from toolchain.calibration.observe import removed_at_end
from toolchain.files.progress import StepProgress
from toolchain.model.catalog import LoadedModel
from toolchain.model.sentences import Sentences
from toolchain.model.text import Reading

STREAMS = 8
"""Parts of the text that are read as one batch, each from an empty state."""

WINDOW = 128
"""Tokens of a forward pass. Gradients do not reach back further (truncated backpropagation through time)."""


class _OutputGradient:
    """The sum over tokens of the squared gradient of every output of a layer, [rows]."""

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
    """F = mean over tokens of (d loss / d output)^2, float32 [rows], by layer path.

    The loss is -log p of a token drawn from the model's own prediction, in nats, summed over tokens. This gives the
    true Fisher information, not the empirical one. A change E of a layer's weights costs about
    1/2 sum_r F_r E_r H E_r^T nats per token, where H is the mean of x x^T. For a classifier one class is drawn per
    sentence, F is the sum over tokens divided by the number of sentences, and the cost is in nats per sentence.

    Args:
        ids: token ids int64 [n], or sentences.
        seed: for drawing tokens or classes.
        progress: called with the tokens read so far and the total.

    Returns:
        Linear layers have [rows]; embeddings have [cols], also those that share the matrix of a linear layer.
    """
    watched: dict[str, _OutputGradient] = {}
    for layer in model.tree.layers:
        watched[layer.path] = _OutputGradient(layer.rows if layer.kind == "linear" else layer.cols)
        if layer.table:
            watched[layer.table] = _OutputGradient(layer.cols)
    generator = torch.Generator().manual_seed(seed)
    state, read, predictions = model.forward.initial_state(0), 0, 0
    hooks = (model.module.get_submodule(p).register_forward_hook(gradient.watch) for p, gradient in watched.items())
    with removed_at_end(hooks):
        for piece, fresh in _pieces(ids, model.forward.context):
            state = model.forward.initial_state(len(piece)) if fresh else state
            logits, after = model.forward(piece, state)
            drawn = torch.multinomial(torch.softmax(logits.detach().flatten(0, 1), -1), 1, generator=generator)[:, 0]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), drawn, reduction="sum")
            loss.backward()  # type: ignore[no-untyped-call]
            state = [s.detach() for s in after]
            read, predictions = read + piece.numel(), predictions + len(drawn)
            progress(read, len(ids))
    return {path: gradient.sum / predictions for path, gradient in watched.items()}


def _pieces(ids: Reading, context: int | None) -> Iterator[tuple[Tensor, bool]]:
    """Batches of tokens [streams, time], and whether states are empty before them: windows of a text, or sentences."""
    if isinstance(ids, Sentences):
        yield from ((ids.stacked(batch), True) for batch in ids.batches(STREAMS))
        return
    for text in _streams(ids, context):
        yield from ((piece, i == 0) for i, piece in enumerate(torch.split(text, WINDOW, 1)))


def _streams(ids: Tensor, context: int | None) -> list[Tensor]:
    """Token ids int64 [n] as batches [streams, time], each read from an empty state.

    A model without a context reads one batch. With a context, every row is one whole context, and the remaining
    tokens are left out.
    """
    if context is None:
        streams = min(STREAMS, max(1, len(ids) // WINDOW))
        return [ids[: len(ids) // streams * streams].view(streams, -1)]
    whole = ids[: len(ids) // context * context].view(-1, context) if len(ids) >= context else ids[None]
    return list(torch.split(whole, STREAMS))
