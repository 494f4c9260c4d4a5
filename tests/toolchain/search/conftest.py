"""A tree of eight layers and an evaluator whose losses add up, so that every search outcome can be worked out."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

import pytest

from exporters.formats.catalog import format_named, formats_matching
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.model.tree import Block, Layer, ModelTree
from toolchain.quality.reference import Score
from toolchain.search.problem import Constraints, Effort, Problem, layer_options
from toolchain.search.search import OutOfTime
from toolchain.search.store import Journal

FORMATS = ("fp16", "int8", "int6-g64", "int4-g64", "int3-g64", "int2-g64")
EFFORT = Effort("test", 0, 0, 6, 4, "range", FORMATS)
ProblemMaker = Callable[..., Problem]


def tree() -> ModelTree:
    """Signs of 100 x 64, two blocks of three linears, a head of 100 x 64; 50 vector and 30 state values."""
    blocks = [Block("emb", (Layer("emb", "embedding", 100, 64, exact="sign"),))]
    for i in range(2):
        shapes = {"key": (64, 64), "gate": (64, 64), "value": (64, 128)}
        layers = tuple(Layer(f"blocks.{i}.{name}", "linear", *shape) for name, shape in shapes.items())
        blocks.append(Block(f"blocks.{i}", layers))
    blocks.append(Block("head", (Layer("head", "linear", 100, 64),)))
    return ModelTree("fake", tuple(blocks), 50, 30)


@pytest.fixture
def problem() -> ProblemMaker:
    def make(
        max_bytes: int | None = None,
        max_drop: float | None = None,
        formats: tuple[str, ...] = FORMATS,
        pins: Mapping[str, str] | None = None,
        effort: Effort = EFFORT,
    ) -> Problem:
        options = layer_options(tree(), formats_matching(formats), pins or {}, effort.method)
        return Problem(tree(), options, Constraints(max_bytes, max_drop), effort, 0)

    return make


class FakeEvaluator:
    """Losses that fall by four per bit and add up; measured with a noise that depends on the recipe alone.

    time: evaluations until OutOfTime. calls: recipes that were really evaluated, past the journal. rounding: what
    inputs of 8 bits cost in a layer of sensitivity 1.
    """

    def __init__(
        self, journal: Journal | None = None, time: float = math.inf, noise: float = 0.0, rounding: float = 0.0
    ) -> None:
        self.journal, self.time, self.noise, self.rounding = journal, time, noise, rounding
        self.calls: list[Recipe] = []
        self.scale = 0.6

    def loss(self, path: str, config: LayerConfig) -> float:
        fmt = format_named(config.format)
        if fmt.name in ("sign", "fp32"):
            return 0.0
        sensitivity = 10 ** random.Random(path).uniform(-1.5, 1)
        weights = 4.0 ** -min(fmt.bits, 11) * random.Random(path + fmt.name).uniform(0.9, 1.1)
        return sensitivity * (weights + (self.rounding if config.activations == "int8" else 0.0))

    def truth(self, recipe: Recipe) -> float:
        """Nats per token that a recipe really loses."""
        return self.scale * sum(self.loss(path, config) for path, config in recipe.items())

    def expect(self, **more: object) -> None:
        """It needs no notice."""

    def evaluate(self, recipe: Recipe) -> Score:
        return self.journal.scored(recipe, self._run) if self.journal is not None else self._run(recipe)

    def _run(self, recipe: Recipe) -> Score:
        if len(self.calls) >= self.time:
            raise OutOfTime
        self.calls.append(dict(recipe))
        dice = random.Random(repr(sorted(recipe.items(), key=str)))
        nats = self.truth(recipe) + dice.gauss(0, self.noise)
        return Score(20 * math.exp(nats), 20.0, math.expm1(nats), self.noise, max(nats, 0.0), 0.9, 1000)


@pytest.fixture
def evaluator() -> type[FakeEvaluator]:
    return FakeEvaluator
