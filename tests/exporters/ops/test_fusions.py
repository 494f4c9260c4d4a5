"""The fused operators: against float64 definitions in every reading, their gradients, threads, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from equations import lif_reference, wkv_reference
from torch import Tensor

from exporters.ops import fusions

LIF = {"tau": 2.0, "threshold": 1.0, "reset": 0.0}
NORM = {"epsilon": 1e-5}
STATES = {"before", "membrane", "numerator", "denominator", "exponent"}
VECTORS = {"weight", "bias", "decay", "first"}
INPUTS = {
    "ShiftMix2": ("x", "before", "weight", "bias", "mix_0", "mix_1"),
    "ShiftMix3": ("x", "before", "weight", "bias", "mix_0", "mix_1", "mix_2"),
    "GatedWkv": ("decay", "first", "key", "value", "receptance", "numerator", "denominator", "exponent"),
    "SpikeAdd": ("residual", "current", "membrane"),
    "GatedSpikeAdd": ("residual", "current", "membrane", "receptance"),
}
ATTRIBUTES: dict[str, dict[str, float]] = {
    "ShiftMix2": NORM, "ShiftMix3": NORM, "GatedWkv": {}, "SpikeAdd": LIF, "GatedSpikeAdd": LIF,
}  # fmt: skip
operators = pytest.mark.parametrize("operator", INPUTS)


def arguments(operator: str, T: int, C: int) -> dict[str, np.ndarray]:
    """Random inputs: sequences [1, T, C], states [1, C], vectors [C], mixes [1, 1, C]."""
    rng = np.random.default_rng([T, C])
    made = {}
    for name in INPUTS[operator]:
        shape = (1, C) if name in STATES else (C,) if name in VECTORS else (1, 1, C) if "mix" in name else (1, T, C)
        made[name] = rng.normal(0.3, 1.5, shape).astype(np.float32)
    if "decay" in made:
        made["decay"] = -np.exp(made["decay"])
        made["denominator"] = np.abs(made["denominator"]) + 0.5
    return made


def shift_mix(x: Tensor, before: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *mixes, epsilon = rest
    n = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + epsilon).sqrt() * weight + bias
    last = torch.cat([before[:, None], n], 1)[:, :-1]
    return *(n * mix + last * (1 - mix) for mix in mixes), torch.cat([before[:, None], n], 1)[:, -1]


def gated_wkv(decay: Tensor, first: Tensor, key: Tensor, value: Tensor, receptance: Tensor, *state: Tensor) -> Any:
    y, *after = wkv_reference(decay, first, key, value, *state)
    return y / (1 + torch.exp(-receptance)), *after


def spike_add(residual: Tensor, current: Tensor, membrane: Tensor, *neurons: float) -> tuple[Tensor, ...]:
    spikes, after = lif_reference(current, membrane, *neurons)
    return residual + spikes, after


def gated_spike_add(residual: Tensor, current: Tensor, membrane: Tensor, gate: Tensor, *neurons: float) -> Any:
    return spike_add(residual, current / (1 + torch.exp(-gate)), membrane, *neurons)


DEFINITIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "ShiftMix2": (fusions.shift_mix2, shift_mix),
    "ShiftMix3": (fusions.shift_mix3, shift_mix),
    "GatedWkv": (fusions.gated_wkv, gated_wkv),
    "SpikeAdd": (fusions.spike_add, spike_add),
    "GatedSpikeAdd": (fusions.gated_spike_add, gated_spike_add),
}


@pytest.mark.parametrize(("T", "C"), [(1, 1), (1, 37), (23, 5), (9, 64)])
@operators
def test_definition(reading, operator, T, C):
    inputs = arguments(operator, T, C)
    tensors = [torch.from_numpy(a).double() for a in inputs.values()]
    expected = DEFINITIONS[operator][1](*tensors, *ATTRIBUTES[operator].values())
    found = reading(operator, inputs, ATTRIBUTES[operator])
    for output, wanted in zip(found, expected, strict=True):
        assert output.shape == tuple(wanted.shape) and output.dtype == np.float32
        np.testing.assert_allclose(output, wanted.numpy(), rtol=2e-5, atol=2e-5)


@operators
def test_chunks_are_the_whole(reading, operator):
    inputs, attributes = arguments(operator, 7, 20), ATTRIBUTES[operator]
    whole = reading(operator, inputs, attributes)
    states = [name for name in inputs if name in STATES]
    parts, state = [], {name: inputs[name] for name in states}
    for start, stop in ((0, 3), (3, 4), (4, 7)):
        chunk = {n: a[:, start:stop] for n, a in inputs.items() if a.ndim == 3 and a.shape[1] == 7}
        outputs = reading(operator, {**inputs, **state, **chunk}, attributes)
        parts.append(outputs[: -len(states)])
        state = dict(zip(states, outputs[-len(states) :], strict=True))
    for i, wanted in enumerate(whole[: -len(states)]):
        np.testing.assert_allclose(np.concatenate([part[i] for part in parts], 1), wanted, rtol=1e-6, atol=1e-6)
    for name, wanted in zip(states, whole[-len(states) :], strict=True):
        np.testing.assert_allclose(state[name], wanted, rtol=1e-6, atol=1e-6)


def kernel(model: Any, library: str, inputs: dict[str, np.ndarray], threads: int) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(library)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: inputs[i.name] for i in session.get_inputs()})


@operators
def test_threads_change_nothing(one_node_model, native_path, operator):
    inputs, attributes = arguments(operator, 150, 130), ATTRIBUTES[operator]
    model = one_node_model(operator, inputs, attributes)
    for one, three in zip(*(kernel(model, native_path, inputs, n) for n in (1, 3)), strict=True):
        np.testing.assert_array_equal(one, three)


def test_squared_relu_of_many(reading):
    x = np.random.default_rng(0).normal(0, 1, (3, 11_000)).astype(np.float32)
    np.testing.assert_allclose(reading("SquaredRelu", {"x": x}, {})[0], np.maximum(x, 0) ** 2, rtol=1e-6)


@operators
def test_an_empty_sequence_leaves_the_state(one_node_model, native_path, operator):
    inputs = arguments(operator, 0, 6)
    found = kernel(one_node_model(operator, inputs, ATTRIBUTES[operator]), native_path, inputs, 1)
    states = [a for n, a in inputs.items() if n in STATES]
    assert all(y.shape == (1, 0, 6) for y in found[: -len(states)])
    for after, before in zip(found[-len(states) :], states, strict=True):
        np.testing.assert_array_equal(after, before)


@operators
def test_gradients(operator):
    """Of every output but wkv's states, which are constants to it, with respect to every floating input."""
    fused, definition = DEFINITIONS[operator]
    inputs = {n: torch.from_numpy(a).double() for n, a in arguments(operator, 6, 4).items()}
    constant = {"numerator", "denominator", "exponent"}
    leaves = [x.requires_grad_(n not in constant) for n, x in inputs.items()]
    trained = [x for x in leaves if x.requires_grad]
    found = []
    for function in (fused, definition):
        outputs = function(*leaves, *ATTRIBUTES[operator].values())
        outputs = outputs[:1] if operator == "GatedWkv" else outputs
        generator = torch.Generator().manual_seed(1)
        loss = sum((y * torch.randn(y.shape, generator=generator, dtype=y.dtype)).sum() for y in outputs)
        found.append(torch.autograd.grad(loss, trained))
    assert any(float(g.abs().max()) > 0 for g in found[0])
    torch.testing.assert_close(*found, rtol=1e-7, atol=1e-9)


def test_gradient_of_squared_relu_by_hand():
    x = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    (grad,) = torch.autograd.grad(fusions.squared_relu(x).sum(), x)
    assert grad.tolist() == [0.0, 1.0, 4.0]


def test_only_what_is_asked_for_gets_a_gradient():
    residual, current, membrane = (torch.zeros(s) for s in ((1, 3, 2), (1, 3, 2), (1, 2)))
    total, _ = fusions.spike_add(residual, current.requires_grad_(), membrane, 2.0, 1.0, 0.0)
    total.sum().backward()
    assert current.grad is not None and residual.grad is None and membrane.grad is None


@pytest.mark.parametrize(
    ("operator", "changed", "words"),
    [
        ("ShiftMix2", {"x": np.ones((2, 4), np.float32)}, "'x' is .*expected .batch, time, channel."),
        ("ShiftMix2", {"before": np.ones((1, 3), np.float32)}, "'before' is"),
        ("ShiftMix2", {"weight": np.ones(3, np.float32)}, "'weight' is .* expected 4 entries"),
        ("ShiftMix3", {"mix_2": np.ones((1, 1, 5), np.float32)}, "'mix' is .* expected 4 entries"),
        ("ShiftMix2", {"epsilon": -1.0}, "epsilon = -1"),
        ("GatedWkv", {"value": np.ones((1, 3, 4), np.float32)}, "'value' is"),
        ("GatedWkv", {"receptance": np.ones((1, 2, 5), np.float32)}, "'receptance' is"),
        ("GatedWkv", {"exponent": np.ones((2, 4), np.float32)}, "'exponent' is"),
        ("SpikeAdd", {"current": np.ones((1, 2, 3), np.float32)}, "'current' is"),
        ("SpikeAdd", {"tau": 0.0}, "tau = 0"),
        ("GatedSpikeAdd", {"receptance": np.ones((1, 1, 4), np.float32)}, "'receptance' is"),
        ("GatedSpikeAdd", {"membrane": np.ones((1, 5), np.float32)}, "'membrane' is"),
    ],
    ids=lambda x: x if isinstance(x, str) else "+".join(x),
)
def test_refusals(one_node_model, native_path, operator, changed, words):
    inputs = arguments(operator, 2, 4)
    attributes = ATTRIBUTES[operator] | {n: v for n, v in changed.items() if n not in inputs}
    inputs |= {n: v for n, v in changed.items() if n in inputs}
    with pytest.raises(Exception, match=words) as caught:
        kernel(one_node_model(operator, inputs, attributes), native_path, inputs, 1)
    assert type(caught.value).__module__.startswith("onnxruntime")
