"""A matrix that learns behind its rounding: it begins as stored, its gradients by hand, and it ends on the grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exporters.formats.catalog import SEARCHED, format_named
from exporters.formats.integer import IntegerFormat
from exporters.formats.parts import Grid
from toolchain.compress.catalog import compress
from toolchain.compress.recipe import LayerConfig
from toolchain.tuning.fake_quantized import FakeQuantizedWeight

LEARNING = [f.name for f in SEARCHED if isinstance(f, IntegerFormat)] + [
    "fp4-g16", "2:4/int4-g64", "6:8/int3-g32", "4:8x16/int4-g64", "2:4/fp4-g16", "1:8/int8+6:8/fp4-g16",
]  # fmt: skip


def matrix(rows: int = 5, cols: int = 70) -> torch.Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", LEARNING)
def test_before_learning_it_is_what_was_stored(name: str) -> None:
    weight, fmt = matrix(), format_named(name)
    encoded = compress(weight, LayerConfig(name, "range"), None)
    rounded = FakeQuantizedWeight(encoded, weight)
    again = rounded.stored()
    assert again.packed.keys() == encoded.packed.keys()
    for name, tensor in encoded.packed.items():
        assert np.array_equal(again.packed[name], tensor), name
    assert np.allclose(rounded().detach().numpy(), fmt.decode(encoded), atol=1e-6)


def by_hand() -> FakeQuantizedWeight:
    """int2, one scale of 0.5: values -1, -0.5, 0, 0.5. Latent weights -1.3, -0.3, 0.2, 0.9; codes 0, 1, 2, 3."""
    fmt = format_named("int2")
    assert isinstance(fmt, IntegerFormat)
    codes = np.array([[0, 1, 2, 3]], np.uint8)
    rounded = FakeQuantizedWeight(fmt.store(codes, Grid(np.full((1, 1), 0.5, np.float32), None)), torch.zeros(1, 4))
    rounded.latent.data = torch.tensor([[-1.3, -0.3, 0.2, 0.9]])
    return rounded


def test_gradients_by_hand() -> None:
    """Straight through where nothing is clamped; a scale moves its weights by code - zero, plus, where not clamped, by
    -latent / scale of the value behind the rounding: -2; -1 + 0.6; 0 - 0.4; 1."""
    rounded = by_hand()
    weight = rounded()
    assert weight.tolist() == [[-1.0, -0.5, 0.0, 0.5]]
    weight.sum().backward()
    (scales,) = rounded.scales
    assert rounded.latent.grad is not None and scales.grad is not None
    assert rounded.latent.grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]
    assert scales.grad.item() == pytest.approx(-2 + (-1 + 0.6) + (0 - 0.4) + 1, abs=1e-6)


def test_what_a_pattern_leaves_out_learns_nothing() -> None:
    """2:4: the two largest learn; the gradient of the others is zero, and they stay zero."""
    weight = torch.tensor([[4.0, 0.1, -3.0, 0.2]])
    rounded = FakeQuantizedWeight(compress(weight, LayerConfig("2:4/int4-g16", "nearest"), None), weight)
    rounded().sum().backward()
    assert rounded.latent.grad is not None
    assert rounded.latent.grad.tolist() == [[1.0, 0.0, 1.0, 0.0]]
    rounded.latent.data += 1
    after = format_named("2:4/int4-g16").decode(rounded.stored())
    assert after[0, 1] == after[0, 3] == 0


def test_what_is_stored_follows_the_latent_weights() -> None:
    rounded = by_hand()
    rounded.latent.data = torch.tensor([[0.9, 0.2, -0.3, -1.3]])
    assert format_named("int2").decode(rounded.stored()).tolist() == [[0.5, 0.0, -0.5, -1.0]]


def test_scales_are_stored_as_float16() -> None:
    rounded = by_hand()
    rounded.scales[0].data = torch.tensor([[0.1]])
    assert rounded.stored().packed["scales"].tolist() == [[float(np.float16(0.1))]]


def test_which_formats_can_learn() -> None:
    def parts(name: str) -> tuple[object, ...]:
        return format_named(name).split(format_named(name).encode(matrix().numpy()))

    assert len(parts("uint3-g64")) == 1
    assert len(parts("1:8/int8+6:8/fp4-g16")) == 2
    assert parts("fp16") == ()
    assert parts("sign") == ()
