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

    A layer that is only looked up in takes no time of its own: it is part of fixed_ms. others: further targets, on
    which a recipe must hold too; what layers take is told of the first one alone, best the slowest.
    """

    fixed_ms: float
    layer_ms: Mapping[Key, float]
    others: tuple[Times, ...] = ()

    def layer(self, path: str, config: LayerConfig) -> float:
        return self.layer_ms.get((path, config.format, config.activations), 0.0)

    def layers(self, recipe: Recipe) -> float:
        """What all products of a recipe take."""
        return sum(self.layer(path, config) for path, config in recipe.items())

    def of(self, recipe: Recipe) -> float:
        """The time on the slowest target."""
        return max([self.fixed_ms + self.layers(recipe), *(other.of(recipe) for other in self.others)])

    def scaled(self, fixed: float, layers: float) -> Times:
        """The same with its two parts multiplied."""
        return Times(fixed * self.fixed_ms, {key: layers * ms for key, ms in self.layer_ms.items()}, self.others)
