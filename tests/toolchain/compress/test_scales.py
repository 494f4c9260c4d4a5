"""Every method gives a matrix times a power of two the same codes, and just that power of two times as much."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exporters.formats.catalog import format_named
from toolchain.compress.catalog import METHODS, compress, method_takes
from toolchain.compress.recipe import LayerConfig
from toolchain.tuning.corrected import parametrization_for

FORMATS = ("int8", "int4-g32", "uint3-g64", "2:4/int4-g64", "4:8x16/int4-g64", "1:8/int8+6:8/fp4-g16", "fp4-g16",
           "event/int4-g64", "diag+int3-g64", "lr4+int3-g64")  # fmt: skip
SHIFTS = (-100, -20, -8, 20, 100)


def seen(size: int = 48) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A weight, the Hessian of inputs, and entropies."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(300, size, generator=random) * torch.rand(size, generator=random)
    return torch.randn(size, size, generator=random) * 0.02, x.T @ x / 300, torch.rand(size, generator=random)


@pytest.mark.parametrize("name", FORMATS)
def test_methods_do_not_know_the_size_of_a_matrix(name: str) -> None:
    weight, hessian, entropy = seen()
    fmt = format_named(name)
    for method in (m.name for m in METHODS if method_takes(m.name, fmt)):
        config = LayerConfig(name, method)
        usual = compress(weight, config, hessian, entropy)
        assert usual.exponent == 0, method
        for k in SHIFTS:
            scaled = compress(weight * 2.0**k, config, hessian, entropy)
            for tensor in (n for n, p in usual.packed.items() if p.dtype == np.uint8):
                assert np.array_equal(scaled.packed[tensor], usual.packed[tensor]), (method, k, tensor)
            wanted = np.ldexp(fmt.decode(usual), k)
            if name.startswith("lr"):
                np.testing.assert_allclose(fmt.decode(scaled), wanted, atol=1e-6 * 2.0**k)
            else:
                np.testing.assert_array_equal(fmt.decode(scaled), wanted)


@pytest.mark.parametrize("name", [n for n in FORMATS if not n.startswith("event/")])
@pytest.mark.parametrize("k", SHIFTS)
def test_what_learns_begins_and_ends_as_stored_whatever_its_size(name: str, k: int) -> None:
    weight, hessian, _ = seen()
    fmt = format_named(name)
    encoded = compress(weight * 2.0**k, LayerConfig(name, "gptq"), hessian)
    assert encoded.exponent != 0 or k == 20
    parametrization = parametrization_for(encoded, weight * 2.0**k)
    assert 2.0**-4 < float(parametrization.latent.detach().abs().max()) < 1
    np.testing.assert_allclose(parametrization().detach().numpy(), fmt.decode(encoded), rtol=1e-5, atol=1e-6 * 2.0**k)
    again = parametrization.stored()
    np.testing.assert_allclose(fmt.decode(again), fmt.decode(encoded), rtol=1e-5, atol=1e-6 * 2.0**k)


def test_a_step_of_learning_moves_matrices_of_unusual_size_alike() -> None:
    """Adam's steps are of one size whatever the gradients: learned as it is, a weight of 2^-40 would be blown away."""
    weight, hessian, _ = seen()
    moved = []
    for k in (-20, -40, 12, 40):
        encoded = compress(weight * 2.0**k, LayerConfig("int4-g32", "gptq"), hessian)
        parametrization = parametrization_for(encoded, weight * 2.0**k)
        optimiser = torch.optim.Adam([parametrization.latent, *parametrization.scales], lr=1e-3)
        ((parametrization() * 2.0**-k) @ torch.ones(48)).square().sum().backward()
        optimiser.step()
        moved.append(parametrization().detach() * 2.0**-k)
    assert all(torch.equal(moved[0], one) for one in moved[1:]) and not torch.equal(moved[0], weight)
