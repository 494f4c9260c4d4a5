"""Recurrences with parameters per channel: all readings beside plain loops, gradients, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exporters.ops.channels import delta_rule, delta_rule_reference, linear_recurrence, plif, plif_reference

PARAMETERS = ("decay", "gain", "threshold", "drop")
LAW = {"low": -2.0, "high": 2.5, "reset": 0.25}


def plif_inputs(shape: tuple[int, int, int], each: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([*shape, len(each)])
    batch, _, channels = shape
    sizes = {name: shape if name in each else (channels,) for name in PARAMETERS}
    parameters = {name: rng.uniform(0.2, 1, size).astype(np.float32) for name, size in sizes.items()}
    if not each:
        parameters["gain"] = np.array(0.75, np.float32)
    current = rng.normal(0, 2, shape).astype(np.float32)
    return {"current": current, **parameters, "membrane": rng.normal(0, 1, (batch, channels)).astype(np.float32)}


def by_definition(inputs: dict[str, np.ndarray], soft: bool, membranes: bool) -> tuple[np.ndarray, np.ndarray]:
    """One neuron after the other, one step after the other, in float32."""
    x = inputs["current"]
    y, after = np.zeros_like(x), inputs["membrane"].copy()
    for b, t, c in np.ndindex(x.shape):
        decay, gain, theta, drop = (np.broadcast_to(inputs[n], x.shape)[b, t, c] for n in PARAMETERS)
        u = min(max(decay * after[b, c] + gain * x[b, t, c], np.float32(-2)), np.float32(2.5))
        fires = u >= theta
        after[b, c] = u if not fires else u - drop if soft else np.float32(0.25)
        y[b, t, c] = after[b, c] if membranes else fires
    return y, after


@pytest.mark.parametrize("each", ["", "threshold", "decay gain threshold drop"], ids=["none", "one", "all"])
@pytest.mark.parametrize(("soft", "membranes"), [(0, 0), (1, 0), (1, 1), (0, 1)])
def test_neurons(reading, each, soft, membranes):
    inputs = plif_inputs((1, 5, 19), each)
    found = reading("Plif", inputs, LAW | {"soft": float(soft), "membranes": float(membranes)})
    for a, b in zip(found, by_definition(inputs, bool(soft), bool(membranes)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert membranes or 0 < np.count_nonzero(found[0]) < found[0].size


@pytest.mark.parametrize("each", [False, True])
def test_linear_recurrences(reading, each):
    rng = np.random.default_rng(each)
    current, state = rng.normal(size=(1, 6, 21)).astype(np.float32), rng.normal(size=(1, 21)).astype(np.float32)
    decay = rng.uniform(0, 1, (1, 6, 21) if each else 21).astype(np.float32)
    y, h = np.zeros_like(current), state
    for t in range(6):
        y[:, t] = h = (decay[:, t] if each else decay) * h + current[:, t]
    found = reading("LinearRecurrence", {"decay": decay, "current": current, "state": state}, {})
    for a, b in zip(found, (y, h), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("heads", "states", "width"), [(2, 2, 20), (6, 2, 5), (1, 1, 1)])
def test_delta_rule(reading, heads, states, width):
    """Each state for itself, in float64, with outer products written out."""
    rng = np.random.default_rng(heads)
    names = ("decay", "key", "value", "removed", "rate")
    inputs = {name: rng.normal(0, 0.5, (1, 4, states * width)).astype(np.float32) for name in names}
    query = rng.normal(size=(1, 4, heads * width)).astype(np.float32)
    state = rng.normal(size=(1, states, width, width)).astype(np.float32)
    found = reading("DeltaRule", {"query": query, **inputs, "state": state}, {})
    y, after = np.zeros((4, heads, width)), np.zeros((states, width, width))
    for g in range(states):
        w, k, v, a, r = (inputs[n][0].reshape(4, states, width)[:, g].astype(np.float64) for n in names)
        S = state[0, g].astype(np.float64)
        for t in range(4):
            S = S @ np.diag(w[t]) + np.outer(S @ a[t], r[t]) + np.outer(v[t], k[t])
            for h in range(g * heads // states, (g + 1) * heads // states):
                y[t, h] = S @ query[0, t].reshape(heads, width)[h]
        after[g] = S
    np.testing.assert_allclose(found[0][0], y.reshape(4, -1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1][0], after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_torch_operators_are_their_equations(dtype):
    """Forward through the compiled body, over a batch of two; backward through the equation."""
    rng = torch.Generator().manual_seed(1)

    def some(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=rng, dtype=dtype).requires_grad_()

    neurons = [some(2, 4, 6), some(6), some(2, 4, 6), some(6), some(6), some(2, 6)]
    law = (-5.0, 5.0, 0.0, 1.0, 1.0)
    states = [some(2, 4, 12), *(some(2, 4, 6) for _ in range(5)), some(2, 2, 3, 3)]
    for operator, equation, inputs in (
        (lambda *x: plif(*x, *law), lambda *x: plif_reference(*x, *law), neurons),
        (delta_rule, delta_rule_reference, states),
    ):
        grads = []
        for function in (operator, equation):
            y, after = function(*inputs)
            grads.append((y, after, *torch.autograd.grad((y.sin().sum() + after.sum()), inputs)))
        for found, expected in zip(*grads, strict=True):
            torch.testing.assert_close(found, expected)


def test_the_gradient_of_a_recurrence():
    """y = (a s + x0, a y0 + x1); d sum / d x0 = 1 + a."""
    decay, state = torch.tensor([0.5], requires_grad=True), torch.tensor([[4.0]])
    current = torch.tensor([[[1.0], [2.0]]], requires_grad=True)
    y, _ = linear_recurrence(decay, current, state)
    y.sum().backward()
    assert y.flatten().tolist() == [3.0, 3.5]
    assert current.grad.flatten().tolist() == [1.5, 1.0]
    assert decay.grad.tolist() == [4.0 + 3.0 + 0.5 * 4.0]


@pytest.mark.parametrize(
    ("operator", "change", "said"),
    [
        ("Plif", {"current": np.ones((2, 3), np.float32)}, "'current' is"),
        ("Plif", {"gain": np.ones(2, np.float32)}, "'gain' is"),
        ("Plif", {"drop": np.ones((1, 1, 3), np.float32)}, "'drop' is"),
        ("Plif", {"membrane": np.ones((1, 2), np.float32)}, "membrane"),
        ("Plif", {"soft": 0.5}, "soft is neither 0 nor 1"),
        ("Plif", {"low": 3.0}, "is not below high"),
        ("LinearRecurrence", {"decay": np.ones((1, 2, 4), np.float32)}, "'decay' is"),
        ("LinearRecurrence", {"state": np.ones((3,), np.float32)}, "state"),
        ("DeltaRule", {"state": np.ones((1, 1, 2, 3), np.float32)}, "'state' is"),
        ("DeltaRule", {"query": np.ones((1, 2, 5), np.float32)}, "serves no heads"),
        ("DeltaRule", {"rate": np.ones((1, 2, 4), np.float32)}, "rate"),
    ],
)
def test_refused_by_the_kernel(kernel_reading, operator, change, said):
    sequence, vector, row = (np.ones(s, np.float32) for s in ((1, 2, 3), (3,), (1, 3)))
    calls = {
        "Plif": {
            "current": sequence, "decay": vector, "gain": vector, "threshold": vector, "drop": vector, "membrane": row,
            "low": -1.0, "high": 1.0, "reset": 0.0, "soft": 0.0, "membranes": 0.0,
        },
        "LinearRecurrence": {"decay": vector, "current": sequence, "state": row},
        "DeltaRule": {
            **dict.fromkeys(("query", "decay", "key", "value", "removed", "rate"), sequence),
            "state": np.ones((1, 1, 3, 3), np.float32),
        },
    }  # fmt: skip
    call = calls[operator] | change
    inputs = {name: value for name, value in call.items() if isinstance(value, np.ndarray)}
    with pytest.raises(Exception, match=said):
        kernel_reading(operator, inputs, {n: v for n, v in call.items() if n not in inputs})
