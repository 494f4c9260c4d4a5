"""The recipe of a model: format, method and activations of every layer."""

from __future__ import annotations

from dataclasses import dataclass

ACTIVATION_BITS = {"fp32": 32, "int8": 8}
"""Bits of a product's inputs by the name of their type. int8 inputs are quantized per token and block."""


@dataclass(frozen=True)
class LayerConfig:
    """The format of one layer's weights, the compression method, and the type of its inputs."""

    format: str
    method: str
    activations: str = "fp32"


Recipe = dict[str, LayerConfig]
"""By layer path, for every layer of a model."""
