"""Spikes before linear layers: the options that a config.json gives them, and the neurons as a module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from exporters.ops.spikes import LEVELS, integrate_fire
from toolchain.model.family import Shapes
from toolchain.model.options import Config, Option, between, one_of, positive, whole

RESETS = ("hard", "soft")


@dataclass(frozen=True)
class Spiking:
    """How values become spikes: steps, values of a spike (2: {0, 1}, 3: {-1, 0, 1}), what a membrane keeps from step to
    step, its reset. constants: threshold and amplitude of all neurons; None where the checkpoint has them."""

    steps: int
    levels: int
    leak: float
    soft: bool
    constants: tuple[float, float] | None = None


class Neurons(nn.Module):
    """Integrate-and-fire neurons before a product, with a threshold and an amplitude per spike step."""

    def __init__(self, spiking: Spiking) -> None:
        super().__init__()
        self.spiking = spiking
        if spiking.constants is None:
            self.threshold = nn.Parameter(torch.ones(spiking.steps))
            self.amplitude = nn.Parameter(torch.ones(spiking.steps))
        else:
            for name, value in zip(("threshold", "amplitude"), spiking.constants, strict=True):
                self.register_buffer(name, torch.full((spiking.steps,), value, device="cpu"), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Real values [S, rows, channels] to spikes of the same shape."""
        spikes: Tensor = integrate_fire(
            x, self.threshold, self.amplitude, self.spiking.leak, float(self.spiking.levels == 3),
            float(self.spiking.soft),
        )  # fmt: skip
        return spikes


SPIKING_OPTIONS = {
    "steps": Option(("spike_steps",), whole),
    "levels": Option(("spike_levels",), one_of(*LEVELS)),
    "leak": Option(("spike_leak",), between(0, 1)),
    "reset": Option(("spike_reset",), one_of(*RESETS)),
    "threshold": Option(("spike_threshold",), positive, None),
    "amplitude": Option(("spike_amplitude",), positive, 1.0),
}
"""What a config.json says of neurons before linear layers; the leak is what a membrane keeps from step to step."""


def check_spiking(config: Config) -> None:
    """Refuse a config that does not say how its values become spikes.

    Raises:
        SlmcError: with what is missing.
    """
    missing = [key for key in ("spike_steps", "spike_levels", "spike_leak", "spike_reset") if config.get(key) is None]
    if missing:
        raise SlmcError(
            f"config.json: {', '.join(missing)} missing; BERT without spikes is not supported, and a spiking one says "
            "spike_steps (1 or more), spike_levels (2 or 3), spike_leak (0 to 1) and spike_reset (hard or soft)"
        )


def spiking_options(shapes: Shapes, values: Mapping[str, Any]) -> Spiking:
    """The neurons of a model whose options are these.

    Args:
        values: of SPIKING_OPTIONS.

    Raises:
        SlmcError: a threshold is given twice, or not at all.
    """
    learned = any(name.endswith("spikes.threshold") for name in shapes)
    if learned and values["threshold"] is not None:
        raise SlmcError("config.json: spike_threshold is given, but the weights have thresholds; leave it out")
    if not learned and values["threshold"] is None:
        raise SlmcError("config.json: spike_threshold is missing; a number above 0 is needed")
    constants = None if learned else (values["threshold"], values["amplitude"])
    return Spiking(values["steps"], values["levels"], float(values["leak"]), values["reset"] == "soft", constants)
