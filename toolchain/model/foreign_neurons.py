"""Neurons of SpikingJelly and snnTorch as neurons of ours: what each computes, read from its own attributes.

SpikingJelly (activation_based): LIFNode, ParametricLIFNode, IFNode, with a hard or a soft reset.

    v[t] = v[t-1] + (x[t] - (v[t-1] - v_reset)) / tau      decay_input; without it x[t] is not divided; IF: v + x
    s[t] = [v[t] >= v_threshold];    v[t] <- v_reset where s[t] = 1, or with v_reset None v[t] - v_threshold s[t]

snnTorch: Leaky, with the resets subtract, zero and none.

    u[t] = beta u[t-1] + x[t] - threshold [u[t-1] > threshold]  (subtract);    s[t] = [u[t] > threshold]

Neither library is imported: classes are known by their names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from exporters.ops.channels import plif

LIMIT = 3e38
"""Membranes are not clipped: so far they may go."""


@dataclass(frozen=True)
class NeuronLaw:
    """Neurons that share their constants.

    decay: what a membrane keeps; None where 1 - sigmoid(w) of a learned w. gain: what inputs are multiplied with; None
    for 1 - decay. offset: added to inputs. drop: what a spike takes from a membrane; None for a hard reset to `reset`.
    """

    decay: float | None
    gain: float | None
    offset: float
    threshold: float
    drop: float | None
    reset: float = 0.0


class Neurons(nn.Module):
    """Neurons before a product: inputs to spikes, with membranes as a state."""

    def __init__(self, law: NeuronLaw) -> None:
        super().__init__()
        self.law = law
        if law.decay is None:
            self.w = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        """x [batch, time, channels], membrane [batch, channels] -> spikes like x, and the membranes after."""
        law = self.law
        if law.decay is None:
            share = torch.sigmoid(self.w)
            decay, gain = 1 - share, share if law.gain is None else torch.tensor(law.gain)
        else:
            decay = torch.tensor(law.decay)
            gain = torch.tensor(1 - law.decay if law.gain is None else law.gain)
        threshold, drop = torch.tensor(law.threshold), torch.tensor(law.drop or 0.0)
        soft = float(law.drop is not None)
        current = x + law.offset if law.offset else x
        spikes, after = plif(current, decay, gain, threshold, drop, membrane, -LIMIT, LIMIT, law.reset, soft, 0.0)
        return spikes, after


def neurons_of(node: nn.Module, path: str) -> Neurons:
    """Neurons that compute what a module of SpikingJelly or snnTorch does, step by step.

    Args:
        node: the module as it was trained; a learned w is in the checkpoint, under the same name.
        path: of the module in its model, for messages.

    Raises:
        SlmcError: it is no neuron that is known, or has an option that is not supported.
    """
    kind = type(node)
    library = kind.__module__.partition(".")[0]
    law = LAWS.get((library, kind.__name__))
    if law is None:
        known = ", ".join(f"{name} of {where}" for where, name in LAWS)
        raise SlmcError(
            f"{path}: {kind.__module__}.{kind.__name__} is no neuron that can be mapped; known are {known}; write its "
            "equation with toolchain.plugin.plif"
        )
    return Neurons(law(node, path))


def _number(node: nn.Module, name: str, path: str) -> float:
    value = getattr(node, name)
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise SlmcError(f"{path}.{name}: {value.numel()} values; neurons of one layer share a number here")
        value = value.item()
    return float(value)


def _refuse(node: nn.Module, path: str, options: Mapping[str, tuple[Any, ...]]) -> None:
    for name, allowed in options.items():
        value = getattr(node, name, allowed[0])
        if value not in allowed:
            raise SlmcError(
                f"{path}.{name} is {value!r}, which is not supported; supported: {', '.join(map(repr, allowed))}"
            )


def _spikingjelly(node: nn.Module, path: str, decay: float | None, *, divided: bool, leaks: bool) -> NeuronLaw:
    """divided: whether inputs are divided by tau; leaks: whether membranes go towards v_reset."""
    threshold, reset = _number(node, "v_threshold", path), getattr(node, "v_reset", None)
    offset = 0.0
    if leaks and reset:
        if decay is None and not divided:
            raise SlmcError(f"{path}: a learned leak towards v_reset {reset} with decay_input False is not supported")
        offset = float(reset) if divided else float(reset) * (1 - (decay or 0.0))
    return NeuronLaw(
        decay=decay, gain=None if divided else 1.0, offset=offset, threshold=threshold,
        drop=threshold if reset is None else None, reset=float(reset or 0.0),
    )  # fmt: skip


def _lif(node: nn.Module, path: str) -> NeuronLaw:
    decay = 1 - 1 / _number(node, "tau", path)
    return _spikingjelly(node, path, decay, divided=bool(getattr(node, "decay_input", True)), leaks=True)


def _parametric(node: nn.Module, path: str) -> NeuronLaw:
    return _spikingjelly(node, path, None, divided=bool(getattr(node, "decay_input", True)), leaks=True)


def _integrate(node: nn.Module, path: str) -> NeuronLaw:
    return _spikingjelly(node, path, 1.0, divided=False, leaks=False)


def _leaky(node: nn.Module, path: str) -> NeuronLaw:
    """The next step's `u > threshold` is u >= the next number; what a spike takes has not leaked yet."""
    _refuse(node, path, {"reset_delay": (True,), "inhibition": (False,), "state_quant": (False,)})
    beta, threshold = min(max(_number(node, "beta", path), 0.0), 1.0), _number(node, "threshold", path)
    how = getattr(node, "reset_mechanism", "subtract")
    if how == "subtract" and beta == 0:
        raise SlmcError(f"{path}: beta 0 with reset_mechanism 'subtract' is not supported; 'zero' is")
    drop = {"subtract": threshold / beta if beta else 0.0, "zero": None, "none": 0.0}[how]
    above = float(np.nextafter(np.float32(threshold), np.float32(math.inf)))
    return NeuronLaw(decay=beta, gain=1.0, offset=0.0, threshold=above, drop=drop)


LAWS: Mapping[tuple[str, str], Callable[[nn.Module, str], NeuronLaw]] = {
    ("spikingjelly", "LIFNode"): _lif,
    ("spikingjelly", "ParametricLIFNode"): _parametric,
    ("spikingjelly", "IFNode"): _integrate,
    ("snntorch", "Leaky"): _leaky,
}
"""By library and class."""
