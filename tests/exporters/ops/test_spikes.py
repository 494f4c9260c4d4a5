"""Spike tensors, and integrate-and-fire over spike steps: against a plain loop, its gradient, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from equations import integrate_fire_reference

from exporters.ops.spikes import integrate_fire

KINDS = [(leak, ternary, soft) for leak in (0.0, 0.25, 1.0) for ternary in (0.0, 1.0) for soft in (0.0, 1.0)]


def by_definition(x: np.ndarray, theta: np.ndarray, a: np.ndarray, kind: tuple[float, float, float]) -> np.ndarray:
    """One neuron after the other, one step after the other."""
    leak, ternary, soft = map(np.float32, kind)
    y = np.zeros_like(x)
    for place in np.ndindex(x.shape[1:]):
        v = np.float32(0)
        for s in range(len(x)):
            u = leak * v + x[s][place]
            z = 1 if u >= theta[s] else -1 if ternary and u <= -theta[s] else 0
            y[s][place] = a[s] * z
            v = u if z == 0 else u - theta[s] * z if soft else np.float32(0)
    return y


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 3, 20), (3, 70, 8)])
def test_spikes(reading, shape, kind):
    rng = np.random.default_rng([*shape, *map(int, kind)])
    inputs = {
        "current": rng.normal(0, 1.5, shape).astype(np.float32),
        "threshold": rng.uniform(0.5, 1.5, shape[0]).astype(np.float32),
        "amplitude": rng.uniform(0.5, 1.5, shape[0]).astype(np.float32),
    }
    (found,) = reading("IntegrateFire", inputs, dict(zip(("leak", "ternary", "soft"), kind, strict=True)))
    np.testing.assert_array_equal(found, by_definition(*inputs.values(), kind))
    assert shape == (1, 1, 1) or 0 < np.count_nonzero(found) < found.size


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"current": np.ones((2, 3), np.float32)}, "'current' is"),
        ({"threshold": np.ones(3, np.float32)}, "threshold"),
        ({"amplitude": np.ones(1, np.float32)}, "amplitude"),
        ({"leak": 1.5}, "leak = 1.5"),
        ({"leak": -0.5}, "leak = -0.5"),
        ({"soft": 0.5}, "soft is neither 0 nor 1"),
        ({"ternary": 2.0}, "ternary is neither 0 nor 1"),
    ],
)
def test_refused_by_the_kernel(kernel_reading, change, said):
    vectors = {"threshold": np.ones(2, np.float32), "amplitude": np.ones(2, np.float32)}
    call = {"current": np.ones((2, 1, 3), np.float32), **vectors, "leak": 1.0, "ternary": 0.0, "soft": 0.0, **change}
    inputs = {name: value for name, value in call.items() if isinstance(value, np.ndarray)}
    with pytest.raises(Exception, match=said):
        kernel_reading("IntegrateFire", inputs, {n: v for n, v in call.items() if n not in inputs})


def test_gradient_is_the_surrogates():
    """One step: y = a [x >= theta]; d y / d x = a / (1 + (pi (x - theta))^2) = -d y / d theta, d y / d a = z."""
    x = torch.tensor([[[0.5, 1.25]]], requires_grad=True)
    theta, a = torch.tensor([1.0], requires_grad=True), torch.tensor([2.0], requires_grad=True)
    integrate_fire(x, theta, a, 0.5, 0.0, 1.0).sum().backward()
    slopes = [2 / (1 + (np.pi * 0.5) ** 2), 2 / (1 + (np.pi * 0.25) ** 2)]
    np.testing.assert_allclose(x.grad.flatten(), slopes, rtol=1e-5)
    assert theta.grad.item() == pytest.approx(-sum(slopes), rel=1e-5)
    assert a.grad.item() == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 3, 20), (3, 70, 8)])
def test_gradients_are_those_of_the_equation(shape, kind):
    """The native gradient beside torch's own of the plain loop."""
    rng = torch.Generator().manual_seed(sum(shape))
    found = []
    for function in (integrate_fire, integrate_fire_reference):
        rng.manual_seed(sum(shape))
        inputs = [1.5 * torch.randn(shape, generator=rng), *(torch.rand(shape[0], generator=rng) + 0.5 for _ in "ta")]
        weights = torch.randn(shape, generator=rng)
        for x in inputs:
            x.requires_grad_()
        (function(*inputs, *kind) * weights).sum().backward()
        found.append([x.grad for x in inputs])
    for native, plain in zip(*found, strict=True):
        torch.testing.assert_close(native, plain, rtol=1e-4, atol=1e-5)


def test_gradient_reaches_back_through_the_membrane():
    """Without a spike x[0] acts on step 1 by the leak; after one a hard reset cuts it off."""
    x = torch.tensor([[[0.25, 1.5]], [[0.25, 0.25]]], requires_grad=True)
    y = integrate_fire(x, torch.ones(2), torch.ones(2), 0.5, 0.0, 0.0)
    y[1].sum().backward()
    u = 0.5 * 0.25 + 0.25
    assert x.grad[0, 0, 0].item() == pytest.approx(0.5 / (1 + (np.pi * (u - 1)) ** 2), rel=1e-5)
    assert x.grad[0, 0, 1].item() == 0
