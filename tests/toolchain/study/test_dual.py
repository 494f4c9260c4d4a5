"""Inputs rounded twice, by hand: which part sees which, and what is left when the body ends."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from exporters.formats.catalog import format_named
from toolchain.study.dual import dual_inputs, dual_product, float4_activations

FORMAT = "1:8/int8+6:8/fp4-g16"


def test_four_bit_inputs_by_hand() -> None:
    """The largest, 6, is 6 scales of 1: 0.3 becomes 0.5, 0.2 becomes 0, -2.4 becomes -2, 5.1 becomes 6, 3.4 becomes 3.

    The next 16 inputs have a scale of their own, and the last ones too, though they are fewer.
    """
    x = torch.zeros(1, 20)
    x[0, :6] = torch.tensor([6.0, 0.3, 0.2, -2.4, 5.1, 3.4])
    x[0, 16:18] = torch.tensor([0.06, 0.034])
    found = float4_activations(x)
    assert found.shape == x.shape
    assert found[0, :6].tolist() == pytest.approx([6, 0.5, 0, -2, 6, 3])
    assert found[0, 16:18].tolist() == pytest.approx([0.06, 0.03])
    assert (float4_activations(torch.zeros(2, 16)) == 0).all()


def test_outliers_see_eight_bits_and_inliers_four() -> None:
    """One outlier (12.7) and six inliers (1, each the largest of its group); input 0 is 1, all others 0.4.

    8 bits know 0.4 as 51/127 of 1; in four bits it is 2.4 scales of 1/6, of which 2 is the nearest.
    """
    weight = torch.tensor([[1.0, 12.7, 1, 1, 1, 1, 1, 0.1]])
    encoded = format_named(FORMAT).encode(weight.numpy())
    x = torch.full((1, 8), 0.4)
    x[0, 0] = 1.0
    expected = 12.7 * 51 / 127 + 1 + 5 * 2 / 6
    assert dual_product(encoded)(x).item() == pytest.approx(expected, rel=1e-3)


def test_a_layer_is_as_before_afterwards() -> None:
    model = nn.Sequential(nn.Linear(16, 8))
    model.requires_grad_(False)
    encoded = format_named(FORMAT).encode(model[0].weight.numpy())
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    before = model(x)
    with dual_inputs(model, {"0": encoded}):
        inside = model(x)
    assert torch.allclose(inside, dual_product(encoded)(x) + model[0].bias)
    assert not torch.allclose(inside, before, atol=1e-3)
    assert torch.equal(model(x), before)
