"""The entropy of every input channel of every linear layer. E-Sparse's pruning score needs it."""

from __future__ import annotations

import torch
from torch import Tensor

from toolchain.calibration.hessian import linear_layers
from toolchain.calibration.observe import observe_inputs
from toolchain.files.progress import StepProgress
from toolchain.model.catalog import LoadedModel
from toolchain.model.text import Reading

BINS = 100
"""Bins of a channel's histogram."""


class _Range:
    """The smallest and the largest value of every channel."""

    def __init__(self, cols: int) -> None:
        self.low, self.high = torch.full((cols,), torch.inf), torch.full((cols,), -torch.inf)

    def add(self, x: Tensor) -> None:
        x = x.reshape(-1, x.shape[-1])
        self.low, self.high = torch.minimum(self.low, x.amin(0)), torch.maximum(self.high, x.amax(0))


class _Histogram:
    """Counts [cols, bins] over a known range."""

    def __init__(self, known: _Range, bins: int) -> None:
        self.low, self.span = known.low, (known.high - known.low).clamp_min(torch.finfo(torch.float32).tiny)
        self.bins = bins
        self.counts = torch.zeros(len(self.low), bins, dtype=torch.int64)

    def add(self, x: Tensor) -> None:
        x = x.reshape(-1, x.shape[-1])
        at = ((x - self.low) / self.span * self.bins).long().clamp_(0, self.bins - 1)
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
    """-sum_b p_b ln p_b in nats, float32 [cols], of the input channels of every linear layer, by layer path.

    p_b is the share of a channel's values in bin b. The bins have equal width and cover the channel's own range
    (E-Sparse, arXiv 2310.15929, section 3). A constant channel has entropy 0. The text is read twice: once for the
    ranges and once for the counts.

    Args:
        ids: token ids int64 [n], or sentences.
        bins: bins of a histogram.
        progress: called with the tokens read so far and the total of both passes.
    """
    ranges = {layer.path: _Range(layer.cols) for layer in linear_layers(model)}
    observe_inputs(model, ids, ranges, lambda done, total: progress(done, 2 * total))
    histograms = {path: _Histogram(known, bins) for path, known in ranges.items()}
    observe_inputs(model, ids, histograms, lambda done, total: progress(total + done, 2 * total))
    return {path: histogram.entropy() for path, histogram in histograms.items()}
