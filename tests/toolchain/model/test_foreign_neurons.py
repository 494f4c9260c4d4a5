"""Neurons of SpikingJelly and snnTorch beside their documented equations, one neuron after the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporters.artifact.errors import SlmcError
from toolchain.model.foreign_neurons import LAWS, neurons_of

X = np.random.default_rng(4).normal(0.4, 0.8, (1, 40, 6)).astype(np.float32)


def node(library: str, name: str, **attributes: Any) -> nn.Module:
    """A module that is called as the library's and has its attributes."""
    kind = type(name, (nn.Module,), {"__module__": f"{library}.somewhere"})
    made = kind()
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


def spikingjelly(kind: str, tau: float, threshold: float, reset: float | None, divided: bool) -> np.ndarray:
    """v += (x - (v - v_reset)) / tau, or x beside the division; IF adds up; spikes [40, 6]."""
    v, rest, out = np.zeros(6), reset or 0.0, []
    for x in X[0].astype(np.float64):
        leaky = v + (x - (v - rest)) / tau if divided else v - (v - rest) / tau + x
        v = v + x if kind == "IFNode" else leaky
        s = v >= threshold
        v = np.where(s, v - threshold if reset is None else reset, v)
        out.append(s)
    return np.array(out)


@pytest.mark.parametrize("reset", [None, 0.0, -0.25])
@pytest.mark.parametrize("divided", [True, False])
@pytest.mark.parametrize("kind", ["LIFNode", "IFNode"])
def test_spikingjelly(kind: str, divided: bool, reset: float | None) -> None:
    attributes = {} if kind == "IFNode" else {"tau": 2.5, "decay_input": divided}
    neurons = neurons_of(node("spikingjelly", kind, v_threshold=0.7, v_reset=reset, **attributes), "blocks.0.lif")
    found, _ = neurons(torch.from_numpy(X), torch.zeros(1, 6))
    expected = spikingjelly(kind, 2.5, 0.7, reset, divided)
    np.testing.assert_array_equal(found[0].numpy(), expected)
    assert 0 < expected.mean() < 1


@pytest.mark.parametrize("reset", [None, 0.0])
def test_a_learned_leak(reset: float | None) -> None:
    """1 / tau = sigmoid(w), under the name that the library gives it."""
    made = node("spikingjelly", "ParametricLIFNode", v_threshold=0.7, v_reset=reset, decay_input=True)
    neurons = neurons_of(made, "lif")
    assert [name for name, _ in neurons.named_parameters()] == ["w"]
    neurons.load_state_dict({"w": torch.tensor(-math.log(2.5 - 1))})
    found, _ = neurons(torch.from_numpy(X), torch.zeros(1, 6))
    np.testing.assert_array_equal(found[0].detach().numpy(), spikingjelly("LIFNode", 2.5, 0.7, reset, True))


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_snntorch(reset: str) -> None:
    """The membrane is lowered a step later than the spike, and a spike needs more than the threshold."""
    made = node(
        "snntorch", "Leaky", beta=torch.tensor(0.75), threshold=torch.tensor(1.0), reset_mechanism=reset,
        reset_delay=True, inhibition=False, state_quant=False,
    )  # fmt: skip
    found, _ = neurons_of(made, "lif")(torch.from_numpy(X), torch.zeros(1, 6))
    u, out = np.zeros(6), []
    for x in X[0].astype(np.float64):
        before = u > 1
        u = 0.75 * (u * ~before if reset == "zero" else u) + x - (before if reset == "subtract" else 0)
        out.append(u > 1)
    np.testing.assert_array_equal(found[0].numpy(), np.array(out))
    assert 0 < np.mean(out) < 1


def test_the_threshold_itself() -> None:
    """SpikingJelly's counts, snnTorch's does not."""
    one = torch.ones(1, 1, 1)
    jelly = neurons_of(node("spikingjelly", "IFNode", v_threshold=1.0, v_reset=0.0), "a")
    leaky = neurons_of(node("snntorch", "Leaky", beta=0.5, threshold=1.0, reset_mechanism="zero"), "b")
    assert jelly(one, torch.zeros(1, 1))[0].item() == 1 and leaky(one, torch.zeros(1, 1))[0].item() == 0


def test_the_real_libraries() -> None:
    """The modules themselves, where snnTorch is installed."""
    snntorch = pytest.importorskip("snntorch", reason="snnTorch is not installed (pip install snntorch)")
    for reset in ("subtract", "zero", "none"):
        lif = snntorch.Leaky(beta=0.75, threshold=1.0, reset_mechanism=reset)
        u, out = torch.zeros(1, 6), []
        for t in range(X.shape[1]):
            s, u = lif(torch.from_numpy(X[:, t]), u)
            out.append(s)
        found, _ = neurons_of(lif, "lif")(torch.from_numpy(X), torch.zeros(1, 6))
        torch.testing.assert_close(found, torch.stack(out, 1).detach(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (node("spikingjelly", "IzhikevichNode"), "blocks.1.lif: spikingjelly.somewhere.IzhikevichNode is no neuron"),
        (nn.ReLU(), "blocks.1.lif: torch.nn.modules.activation.ReLU is no neuron that can be mapped"),
        (node("snntorch", "Leaky", beta=0.5, threshold=1.0, inhibition=True), r"blocks.1.lif.inhibition is True"),
        (node("snntorch", "Leaky", beta=torch.ones(3), threshold=1.0), r"blocks.1.lif.beta: 3 values"),
        (node("snntorch", "Leaky", beta=0.0, threshold=1.0), "beta 0 with reset_mechanism 'subtract'"),
        (
            node("spikingjelly", "ParametricLIFNode", v_threshold=1.0, v_reset=0.5, decay_input=False),
            "a learned leak towards v_reset 0.5",
        ),
    ],
)
def test_what_cannot_be_mapped_is_named(made: nn.Module, said: str) -> None:
    with pytest.raises(SlmcError, match=said):
        neurons_of(made, "blocks.1.lif")
    assert len(LAWS) == 4
