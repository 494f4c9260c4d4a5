"""Entropy of every input channel of every linear layer: what E-Sparse's score asks of calibration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from toolchain.files.progress import StepProgress
from toolchain.model.catalog import LoadedModel
from toolchain.model.text import Reading
from toolchain.quality.reference import stream_logits

BINS = 100
"""Of a channel's histogram."""


class _Range:
    """Least and largest value of every channel."""

    def __init__(self, cols: int) -> None:
        self.low, self.high = torch.full((cols,), torch.inf), torch.full((cols,), -torch.inf)

    def add(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0].reshape(-1, inputs[0].shape[-1])
        self.low, self.high = torch.minimum(self.low, x.amin(0)), torch.maximum(self.high, x.amax(0))


class _Histogram:
    """Counts [cols, bins] over a range that is known."""

    def __init__(self, seen: _Range, bins: int) -> None:
        self.low, self.width = seen.low, (seen.high - seen.low).clamp_min(torch.finfo(torch.float32).tiny)
        self.bins = bins
        self.counts = torch.zeros(len(self.low), bins, dtype=torch.int64)

    def add(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0].reshape(-1, inputs[0].shape[-1])
        at = ((x - self.low) / self.width * self.bins).long().clamp_(0, self.bins - 1)
        at += torch.arange(len(self.low)) * self.bins
        self.counts += torch.bincount(at.flatten(), minlength=self.counts.numel()).view_as(self.counts)

    def entropy(self) -> Tensor:
        """-sum_b p_b ln p_b, float32 [cols]."""
        p = self.counts.double() / self.counts.sum(1, keepdim=True).clamp_min(1)
        entropy: Tensor = torch.special.entr(p).sum(1).float()
        return entropy


def channel_entropies(
    model: LoadedModel, ids: Reading, bins: int = BINS, progress: StepProgress = lambda done, total: None
) -> dict[str, Tensor]:
    """-sum_b p_b ln p_b in nats, float32 [cols], of every linear layer's input channels over what the model reads.

    p_b is the share of a channel's values in bin b of `bins` equal ones over its own range (E-Sparse,
    arXiv 2310.15929, section 3); a channel that never changes has entropy 0. The text is read twice: for the ranges,
    and for the counts.
    """
    layers = {layer.path: layer.cols for layer in model.tree.layers if layer.kind == "linear"}
    ranges = {path: _Range(cols) for path, cols in layers.items()}
    _watch(model, ids, ranges, lambda done, total: progress(done, 2 * total))
    histograms = {path: _Histogram(ranges[path], bins) for path in layers}
    _watch(model, ids, histograms, lambda done, total: progress(total + done, 2 * total))
    return {path: histogram.entropy() for path, histogram in histograms.items()}


def _watch(model: LoadedModel, ids: Reading, watchers: dict[str, Any], progress: StepProgress) -> None:
    """Let every watcher see its layer's inputs over the text."""
    hooks = [
        model.module.get_submodule(path).register_forward_pre_hook(watcher.add) for path, watcher in watchers.items()
    ]
    try:
        for start, _ in stream_logits(model.forward, ids):
            progress(start, len(ids))
    finally:
        for hook in hooks:
            hook.remove()
