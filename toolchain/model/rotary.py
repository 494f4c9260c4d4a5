"""Rotary positions whose frequencies are scaled to reach further than a model was first trained: linear, llama3, yarn.

Formulas: linear (arXiv 2306.15595), yarn (arXiv 2309.00071, section 3.2 and 3.4), llama3 as Meta released it with
Llama 3.1. `dynamic` changes nothing up to the length that a model was trained on, and no cache here is longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError


@dataclass(frozen=True)
class Rotary:
    """Rotary positions (arXiv 2104.09864) of a layer: its first 2 len(frequencies) channels of every head are turned.

    frequencies: radians per token, one per pair of channels. magnitude: factor of queries and keys alike.
    plain: whether the frequencies are those of the base theta.
    """

    theta: float
    frequencies: tuple[float, ...]
    magnitude: float = 1.0
    plain: bool = True

    @property
    def channels(self) -> int:
        """How many channels of a head are turned."""
        return 2 * len(self.frequencies)


def rotary_of(values: Mapping[str, Any], head_size: int, trained: int) -> Rotary:
    """The rotary positions that a config's options ask for.

    Args:
        values: options as `decoder_options` names them.
        head_size: channels of a head, of which `rotated_share` are turned.
        trained: max_position_embeddings.

    Raises:
        SlmcError: an option that the kind of scaling needs is missing, or does not go with the others.
    """
    theta, channels = float(values["theta"]), int(head_size * values["rotated_share"])
    if channels % 2 or not channels:
        raise SlmcError(
            f"config.json: {values['rotated_share']} of heads of size {head_size} are {channels} channels, and rotary "
            "positions turn pairs; an even number is needed"
        )
    plain = 1.0 / (theta ** (torch.arange(0, channels, 2, dtype=torch.float32) / channels))
    made = SCALINGS[values["rope_type"]]
    frequencies, magnitude = (plain, 1.0) if made is None else made(plain, values, trained)
    return Rotary(theta, tuple(frequencies.tolist()), magnitude, made is None)


def _factor(values: Mapping[str, Any]) -> float:
    if values["factor"] is None:
        raise SlmcError(f"config.json: factor is missing, which rope_type {values['rope_type']!r} needs; a number")
    return float(values["factor"])


Scaled = tuple[Tensor, float]
"""Frequencies, and the factor of queries and keys."""


def _linear(plain: Tensor, values: Mapping[str, Any], trained: int) -> Scaled:
    return plain / _factor(values), 1.0


def _llama3(plain: Tensor, values: Mapping[str, Any], trained: int) -> Scaled:
    """Long waves are stretched, short ones kept, those between mixed by how often they fit into the first context."""
    factor, low, high = _factor(values), values["low_freq_factor"], values["high_freq_factor"]
    if low is None or high is None or not low < high:
        raise SlmcError(
            f"config.json: low_freq_factor is {low}, high_freq_factor {high}; rope_type 'llama3' needs two rising "
            "numbers"
        )
    turns = (values["first_context"] or trained) * plain / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * plain / factor + kept * plain, 1.0


def _yarn(plain: Tensor, values: Mapping[str, Any], trained: int) -> Scaled:
    """As llama3 with a ramp over channels, and scores sharpened as contexts grow."""
    factor, width, theta = _factor(values), 2 * len(plain), values["theta"]
    context = values["first_context"] or trained

    def channel(turns: float) -> float:
        return width * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = channel(values["beta_fast"]), channel(values["beta_slow"])
    if values["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    ramp = (torch.arange(len(plain), dtype=torch.float32) - low) / (high - low if high != low else 0.001)
    stretched = ramp.clamp(0, 1)
    return stretched * plain / factor + (1 - stretched) * plain, _magnitude(values, factor)


def _magnitude(values: Mapping[str, Any], factor: float) -> float:
    def scale(share: float) -> float:
        return 0.1 * share * math.log(factor) + 1 if factor > 1 else 1.0

    if values["attention_factor"] is not None:
        return float(values["attention_factor"])
    if values["mscale"] and values["mscale_all_dim"]:
        return scale(values["mscale"]) / scale(values["mscale_all_dim"])
    return scale(1.0)


def _longrope(plain: Tensor, values: Mapping[str, Any], trained: int) -> Scaled:
    """Factors of their own for every pair of channels (arXiv 2402.13753): those of texts up to the first context."""
    factors, first, attention = values["short_factor"], values["first_context"] or trained, values["attention_factor"]
    if factors is None or len(factors) != len(plain):
        raise SlmcError(
            f"config.json: short_factor is {factors}; rope_type 'longrope' needs {len(plain)} numbers above 0"
        )
    ratio = values["factor"] or trained / first
    grown = math.sqrt(1 + math.log(ratio) / math.log(first)) if ratio > 1 else 1.0
    return plain / torch.tensor(factors), attention or grown


SCALINGS: dict[str, Callable[[Tensor, Mapping[str, Any], int], Scaled] | None] = {
    "default": None, "dynamic": None, "linear": _linear, "llama3": _llama3, "yarn": _yarn,
    "longrope": _longrope,
}  # fmt: skip
"""By rope_type; None where a base alone says the frequencies."""
