"""Shares of zero inputs, by hand and against a hook of our own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from toolchain.calibration.zeros import zero_shares
from toolchain.model.catalog import LoadedModel


def test_shares_of_a_bigram_by_hand(bigram: LoadedModel) -> None:
    """The head reads rows of three: row 1 has two zeros, row 4 none; of a text 1 1 4 that is 4 of 9."""
    bigram.weight("emb")[1] = torch.tensor([0.0, 5.0, 0.0])
    assert zero_shares(bigram, torch.tensor([1, 1, 4])) == {"head": pytest.approx(4 / 9)}


def test_a_squared_relu_leaves_zeros(spiking: LoadedModel, token_ids: Any) -> None:
    shares = zero_shares(spiking, token_ids(600, 13))
    assert shares.keys() == {layer.path for layer in spiking.tree.layers if layer.kind == "linear"}
    for path, share in shares.items():
        assert 0.2 < share < 0.8 if path.endswith("ffn.value") else share < 0.05, path
    assert not any(module._forward_pre_hooks for module in spiking.module.modules())
