"""Entropy of input channels, counted by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from toolchain.calibration.entropy import channel_entropies
from toolchain.model.catalog import LoadedModel


def test_four_bins_by_hand(bigram: LoadedModel) -> None:
    """Channels read 0 1 2 3 (a bin each: ln 4), 0 0 0 8 (3/4 and 1/4), and 5 5 5 5 (nothing to tell)."""
    table = torch.tensor([[0.0, 0, 5], [1, 0, 5], [2, 0, 5], [3, 8, 5], [9, 9, 9]])
    bigram.module.emb.weight.data = table
    found = channel_entropies(bigram, torch.tensor([0, 1, 2, 3]), bins=4)
    assert list(found) == ["head"]
    uneven = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found["head"].tolist() == pytest.approx([math.log(4), uneven, 0.0], abs=1e-6)


def test_bins_divide_each_channels_own_range(bigram: LoadedModel) -> None:
    """0 1 2 3 in two bins is half and half, whatever the unit and the place."""
    steps = torch.tensor([0.0, 1, 2, 3, 3])[:, None]
    bigram.module.emb.weight.data = torch.cat([steps, 1000 * steps - 7, -1e-6 * steps], 1)
    found = channel_entropies(bigram, torch.tensor([0, 1, 2, 3]), bins=2)["head"]
    assert found.tolist() == pytest.approx([math.log(2)] * 3, abs=1e-6)


def test_against_a_histogram_of_another_library(spiking: LoadedModel, token_ids: Callable[[int, int], Tensor]) -> None:
    ids, path, seen = token_ids(700, 13), "blocks.1.ffn.value", []
    hook = spiking.module.get_submodule(path).register_forward_pre_hook(lambda _m, x: seen.append(x[0].reshape(-1, 20)))
    found = channel_entropies(spiking, ids, bins=10)[path]
    hook.remove()
    x = torch.cat(seen)[:700]  # the text is read twice
    for channel in range(20):
        counts = torch.histc(x[:, channel], 10, float(x[:, channel].min()), float(x[:, channel].max()))
        p = counts[counts > 0] / counts.sum()
        alive = x[:, channel].max() > x[:, channel].min()
        assert float(found[channel]) == pytest.approx(float(-(p * p.log()).sum()) if alive else 0.0, abs=0.02)


def test_progress_reaches_both_readings(bigram: LoadedModel) -> None:
    told: list[tuple[int, int]] = []
    channel_entropies(bigram, torch.zeros(1100, dtype=torch.int64), progress=lambda d, t: told.append((d, t)))
    assert told[0] == (0, 2200)
    assert [d for d, _ in told] == sorted(d for d, _ in told)
    assert told[-1][0] >= 1100
