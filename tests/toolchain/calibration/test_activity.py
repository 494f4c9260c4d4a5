"""Spikes and zeros of a layer's inputs, counted by hand, and of a real model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from toolchain.calibration.activity import _Counter, input_activity
from toolchain.model.catalog import load_model


def test_by_hand() -> None:
    counter = _Counter()
    counter.add(nn.Identity(), (torch.tensor([[0.0, 1.0, 1.0, 0.0]]),))
    assert (counter.nonzero, counter.total, counter.spikes) == (2, 4, True)
    counter.add(nn.Identity(), (torch.tensor([[-0.5, 0.5], [2.0, 0.0], [0.0, 0.0]]),))
    assert (counter.nonzero, counter.total, counter.spikes) == (5, 10, True)
    counter.add(nn.Identity(), (torch.tensor([[1.0, 0.5]]),))
    assert (counter.nonzero, counter.total, counter.spikes) == (7, 12, False)


def test_squared_relu_is_sparse_and_the_rest_is_not(tiny_model: Path) -> None:
    found = input_activity(load_model(tiny_model), torch.arange(64) % 300)
    assert set(found) == {layer.path for layer in load_model(tiny_model).tree.layers if layer.kind == "linear"}
    assert 0 < found["blocks.0.ffn.value"].nonzero < 0.9
    assert found["blocks.0.att.key"].nonzero > 0.99 and not found["blocks.0.att.key"].spikes
