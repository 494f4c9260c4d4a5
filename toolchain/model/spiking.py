"""Spikes before linear layers: the options that a config.json gives them, and the neurons as a module."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exporters.errors import SlmcError
from exporters.ops.spikes import LEVELS, integrate_fire
from toolchain.model.config import Config, number, only, whole
from toolchain.model.family import Shapes

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


def spiking_options(shapes: Shapes, config: Config) -> Spiking:
    """The spike options of a config.json.

    Raises:
        SlmcError: one is missing or is none that the neurons compute.
    """
    missing = [key for key in ("spike_steps", "spike_levels", "spike_leak", "spike_reset") if key not in config]
    if missing:
        raise SlmcError(
            f"config.json: {', '.join(missing)} missing; BERT without spikes is not supported, and a spiking one says "
            "spike_steps (1 or more), spike_levels (2 or 3), spike_leak (0 to 1) and spike_reset (hard or soft)"
        )
    only(config, "spike_levels", *LEVELS)
    only(config, "spike_reset", *RESETS)
    leak = config["spike_leak"]
    if isinstance(leak, bool) or not isinstance(leak, (int, float)) or not 0 <= leak <= 1:
        raise SlmcError(f"config.json: spike_leak is {leak!r}; what a membrane keeps is a number from 0 to 1")
    learned = any(name.endswith("spikes.threshold") for name in shapes)
    if learned and "spike_threshold" in config:
        raise SlmcError("config.json: spike_threshold is given, but the weights have thresholds; leave it out")
    constants = None if learned else (number(config, "spike_threshold"), number(config, "spike_amplitude", 1.0))
    return Spiking(whole(config, "spike_steps"), config["spike_levels"], float(leak), config["spike_reset"] == "soft",
                   constants)  # fmt: skip
