"""A fake evaluator that knows estimates, and says what was compressed."""

from __future__ import annotations

from typing import Any

from toolchain.compress.recipe import LayerConfig


class Told:
    """The fake evaluator, with estimates that are twice the truth."""

    def __init__(self, fake: Any) -> None:
        self.fake, self.compressed = fake, set()

    def loss(self, path: str, config: LayerConfig) -> float:
        self.compressed.add((path, config.format))
        return self.fake.loss(path, config)

    def estimate(self, path: str, config: LayerConfig) -> float:
        return 2 * self.fake.loss(path, config)

    def expect(self, **more: Any) -> None:
        """It needs no notice."""

    def kurtosis(self, path: str) -> float:
        return 3.0

    def evaluate(self, recipe: Any) -> Any:
        return self.fake.evaluate(recipe)
