"""Predicted time per token of a recipe, as a sum over its layers: what a search may steer by before it measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolchain.compress.recipe import LayerConfig, Recipe

Key = tuple[str, str, str]
"""Layer path, format, activations."""


@dataclass(frozen=True)
class Times:
    """Milliseconds per generated token on a target, from its measured costs: fixed_ms, and each layer's product.

    A layer that is only looked up in takes no time of its own: it is part of fixed_ms.
    """

    fixed_ms: float
    layer_ms: Mapping[Key, float]

    def layer(self, path: str, config: LayerConfig) -> float:
        return self.layer_ms.get((path, config.format, config.activations), 0.0)

    def of(self, recipe: Recipe) -> float:
        return self.fixed_ms + sum(self.layer(path, config) for path, config in recipe.items())
