"""A corrected matrix that learns: it begins as stored, all its parts learn, and it ends in its format."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exporters.formats.catalog import format_named
from toolchain.compress.catalog import compress
from toolchain.compress.recipe import LayerConfig
from toolchain.tuning.corrected import CorrectedWeight, parametrization_for
from toolchain.tuning.fake_quantized import FakeQuantizedWeight


def matrix() -> torch.Tensor:
    return torch.randn(40, 40, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", ["diag+int4-g16", "diag+uint3-g32", "lr3+int2-g16"])
def test_before_learning_it_is_what_was_stored(name: str) -> None:
    encoded = compress(matrix(), LayerConfig(name, "range"), None)
    parametrization = parametrization_for(encoded, matrix())
    assert isinstance(parametrization, CorrectedWeight)
    for tensor, values in parametrization.stored().packed.items():
        assert np.array_equal(values, encoded.packed[tensor]), tensor
    assert np.allclose(parametrization().detach().numpy(), format_named(name).decode(encoded), atol=1e-6)


def test_gradients_of_a_correction_by_hand() -> None:
    """The sum of weights moves by one with an entry of the diagonal, by the other factor's sums with low rank."""
    parametrization = parametrization_for(compress(matrix(), LayerConfig("diag+int4", "range"), None), matrix())
    parametrization().sum().backward()
    assert parametrization.scales[-1].grad is not None and parametrization.scales[-1].grad.tolist() == [1.0] * 40
    parametrization = parametrization_for(compress(matrix(), LayerConfig("lr2+int4", "range"), None), matrix())
    parametrization().sum().backward()
    left, right = parametrization.scales[-2], parametrization.scales[-1]
    assert left.grad is not None and right.grad is not None
    torch.testing.assert_close(left.grad, right.detach().sum(1).expand(40, 2))
    torch.testing.assert_close(right.grad, left.detach().sum(0)[:, None].expand(2, 40))


def test_other_formats_learn_without_one() -> None:
    assert isinstance(
        parametrization_for(format_named("int4-g16").encode(matrix().numpy()), matrix()), FakeQuantizedWeight
    )
