"""What shall happen to every layer: a total map from layer path to format and method."""

from __future__ import annotations

from dataclasses import dataclass

ACTIVATION_BITS = {"fp32": 32, "int8": 8}
"""Bits of a product's inputs, by the name of what happens to them: as they are, or rounded per token and block."""


@dataclass(frozen=True)
class Choice:
    """What happens to one layer: its weights' format, the method that gets them there, and its inputs' activations."""

    format: str
    method: str
    activations: str = "fp32"


Recipe = dict[str, Choice]
"""Every layer path of a model to its choice."""
