"""Activity, spikes and zeros of a layer's inputs: by hand, and of a real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from toolchain.calibration.activity import _ActivityCounter, input_activity
from toolchain.model.catalog import LoadedModel, load_model


def test_by_hand() -> None:
    counter = _ActivityCounter()
    counter.add(torch.tensor([[0.0, 1.0, 1.0, 0.0]]))
    assert (counter.nonzero, counter.total, counter.spikes) == (2, 4, True)
    counter.add(torch.tensor([[-0.5, 0.5], [2.0, 0.0], [0.0, 0.0]]))
    assert (counter.nonzero, counter.total, counter.spikes) == (5, 10, True)
    counter.add(torch.tensor([[1.0, 0.5]]))
    assert (counter.nonzero, counter.total, counter.spikes) == (7, 12, False)


def test_squared_relu_is_sparse_and_the_rest_is_not(tiny_model: Path) -> None:
    found = input_activity(load_model(tiny_model), torch.arange(64) % 300)
    assert set(found) == {layer.path for layer in load_model(tiny_model).tree.layers if layer.kind == "linear"}
    assert 0 < found["blocks.0.ffn.value"].nonzero < 0.9
    assert found["blocks.0.att.key"].nonzero > 0.99 and not found["blocks.0.att.key"].spikes


def test_a_layer_that_never_ran_counts_as_dense() -> None:
    assert _ActivityCounter().activity().nonzero == 1.0


def test_shares_of_a_bigram_by_hand(bigram: LoadedModel) -> None:
    """The head reads rows of three: row 1 has two zeros, row 4 none; of a text 1 1 4 that is 4 of 9."""
    bigram.weight("emb")[1] = torch.tensor([0.0, 5.0, 0.0])
    assert input_activity(bigram, torch.tensor([1, 1, 4]))["head"].nonzero == pytest.approx(5 / 9)


def test_a_squared_relu_leaves_zeros(spiking: LoadedModel, token_ids: Any) -> None:
    shares = {path: 1 - found.nonzero for path, found in input_activity(spiking, token_ids(600, 13)).items()}
    assert shares.keys() == {layer.path for layer in spiking.tree.layers if layer.kind == "linear"}
    for path, share in shares.items():
        assert 0.2 < share < 0.8 if path.endswith("ffn.value") else share < 0.05, path
    assert not any(module._forward_pre_hooks for module in spiking.module.modules())
