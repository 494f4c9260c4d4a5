"""Weights on a table's steps: gradients by hand, and that all three kinds of parameters come nearer together."""

from __future__ import annotations

import numpy as np
import torch

from exporters.formats.catalog import format_named
from exporters.formats.nonuniform import NonUniformFormat
from exporters.formats.parts import Grid
from toolchain.tuning.corrected import parametrization_for
from toolchain.tuning.table_weight import TableWeight

STEPS = (-128, -60, -20, 0, 10, 30, 70, 127)


def test_gradients_by_hand() -> None:
    """One group of scale 1/8 with the codes of -60, 10, 10 and 127; the loss is the sum of the weights.

    Parameters are those of an integer format: scales 32 times larger, steps 1/32 of theirs times the median scale, 4.
    """
    fmt = NonUniformFormat(3, 16, STEPS)
    codes = np.array([[1, 4, 4, 7]], np.uint8)
    encoded = fmt.store(codes, Grid(np.full((1, 1), 0.125, np.float32), None, fmt.table))
    weight = TableWeight(encoded, torch.tensor([[-60.0, 12.0, 10.0, 300.0]]) / 8)
    assert (8 * weight()).tolist() == [[-60, 10, 10, 127]]
    weight().sum().backward()
    scales, steps = weight.scales
    assert scales.detach().tolist() == [[4.0]] and (8 * steps.detach()).tolist() == list(STEPS)
    assert steps.grad is not None and steps.grad.tolist() == [0, 1, 0, 0, 2, 0, 0, 1]
    assert weight.latent.grad is not None and weight.latent.grad.tolist() == [[1, 1, 1, 0]]  # the last is clamped
    latent = 8 * weight.latent.detach()
    assert 10 < float(latent[0, 1]) <= 12 and float(latent[0, 3]) > 127
    assert scales.grad is not None
    wanted = (-60 + 10 + 10 + 127 - float(latent[0, :3].sum())) / 32
    np.testing.assert_allclose(scales.grad.item(), wanted, rtol=1e-5)


def test_steps_learn() -> None:
    """A table that is wrong by a tenth is found again, with codes and scales held."""
    random = torch.Generator().manual_seed(0)
    fmt = format_named("nl3-g32")
    weight = 0.1 * torch.randn(32, 64, generator=random)
    encoded = fmt.encode(weight.numpy())
    wanted = torch.from_numpy(fmt.decode(encoded))
    off = {**encoded.packed, "steps": np.rint(encoded.packed["steps"] * 0.9).astype(np.int8)}
    trained = parametrization_for(type(encoded)(encoded.format, encoded.shape, off, encoded.exponent), wanted)
    before = float((trained().detach() - wanted).square().sum())
    optimiser = torch.optim.Adam([trained.scales[1]], lr=1e-3)
    for _ in range(40):
        optimiser.zero_grad()
        (trained() - wanted).square().sum().backward()
        optimiser.step()
    after = torch.from_numpy(fmt.decode(trained.stored()))
    assert float((after - wanted).square().sum()) < 0.1 * before
