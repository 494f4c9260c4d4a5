"""Input activity: the share of a layer's inputs that is not zero on a text, and whether the inputs are spikes."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from targets.cpus.energy import Activity
from toolchain.calibration.hessian import linear_layers
from toolchain.calibration.observe import observe_inputs
from toolchain.model.catalog import LoadedModel
from toolchain.model.text import Reading

ACTIVITY_TOKENS = 2048
"""Tokens of the calibration text on which activity is counted. More tokens hardly change the shares."""


class _ActivityCounter:
    """Counts the inputs of one layer and checks whether they are spikes."""

    def __init__(self) -> None:
        self.nonzero = self.total = 0
        self.spikes = True

    def add(self, x: Tensor) -> None:
        self.nonzero += int(torch.count_nonzero(x))
        self.total += x.numel()
        size = x.abs()
        self.spikes = self.spikes and bool(((x == 0) | (size == size.amax(-1, keepdim=True))).all())

    def activity(self) -> Activity:
        """A layer without any input counts as dense."""
        return Activity(self.nonzero / self.total if self.total else 1.0, self.spikes)


def input_activity(model: LoadedModel, ids: Reading) -> dict[str, Activity]:
    """The activity of every linear layer's inputs while the fp32 model reads a text, by layer path.

    ids: token ids int64 [n], or sentences.
    """
    counters = {layer.path: _ActivityCounter() for layer in linear_layers(model)}
    observe_inputs(model, ids, counters)
    counted = {layer.path for layer in model.tree.layers if layer.counts}
    return {path: dataclasses.replace(counter.activity(), counts=path in counted) for path, counter in counters.items()}
