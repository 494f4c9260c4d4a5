"""All that a tier may look at: the hierarchy, the options of every layer, the limits, and how to try a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from exporters.errors import SlmcError
from exporters.formats.base import Format, bytes_for
from exporters.formats.catalog import format_named
from exporters.formats.dense import FP32, SIGN
from exporters.formats.event import EventFormat
from exporters.formats.integer import IntegerFormat
from toolchain.compress.catalog import method_named
from toolchain.compress.recipe import Choice, Recipe
from toolchain.evidence.quality import Score
from toolchain.model.tree import Layer, ModelTree


@dataclass(frozen=True)
class Limits:
    """What must hold: bytes of weights and states as stored; relative loss of the metric. None is no limit."""

    max_bytes: int | None
    max_drop: float | None


@dataclass(frozen=True)
class Effort:
    """How much a search spends.

    calibration_tokens, evaluation_tokens: how much of the texts is read; budgets: points of the byte ladder;
    bisections: budgets tried between a feasible and an infeasible one; method: of rounding to integers.
    """

    name: str
    calibration_tokens: int
    evaluation_tokens: int
    budgets: int
    bisections: int
    method: str
    formats: tuple[str, ...]


EFFORTS = (
    Effort("quick", 1024, 1024, 4, 2, "range", ("int8", "int6-g64", "int4-g64", "int3-g64", "int2-g64")),
    Effort("default", 16384, 16384, 10, 5, "gptq", ("*",)),
    Effort("thorough", 65536, 65536, 20, 10, "gptq", ("*",)),
)


def effort_named(name: str) -> Effort:
    """The effort of that name.

    Raises:
        SlmcError: there is none.
    """
    for effort in EFFORTS:
        if effort.name == name:
            return effort
    raise SlmcError(f"unknown effort {name!r}; allowed are {', '.join(e.name for e in EFFORTS)}")


class Evaluator(Protocol):
    """The ways to judge a recipe."""

    def evaluate(self, recipe: Recipe) -> Score:
        """Of a total recipe, on the evaluation text; remembered."""
        ...

    def loss(self, path: str, choice: Choice) -> float:
        """What a layer alone is expected to cost in a choice, nats per token."""
        ...


@dataclass(frozen=True)
class Problem:
    """A model to be compressed.

    options: every layer's choices, many bits first; a pinned layer has one. activations: whether products round their
    inputs: fp32, int8, or search (see activations.py).
    """

    tree: ModelTree
    options: Mapping[str, tuple[Choice, ...]]
    limits: Limits
    effort: Effort
    seed: int
    activations: str = "fp32"

    def layer_bytes(self, layer: Layer, choice: Choice) -> int:
        return bytes_for(format_named(choice.format), layer.rows, layer.cols)

    def bytes(self, recipe: Recipe) -> int:
        """Weights and states as stored, what no format changes included."""
        return self.tree.fixed_bytes + sum(self.layer_bytes(layer, recipe[layer.path]) for layer in self.tree.layers)

    @property
    def smallest_bytes(self) -> int:
        options = ((layer, self.options[layer.path]) for layer in self.tree.layers)
        return self.tree.fixed_bytes + sum(min(self.layer_bytes(layer, c) for c in some) for layer, some in options)


def layer_options(
    tree: ModelTree, formats: Sequence[Format], pins: Mapping[str, str], method: str
) -> dict[str, tuple[Choice, ...]]:
    """What every layer may become. A layer that only its signs matter of is stored as signs, which is exact.

    pins: layer path -> format name; a pinned layer has no other option.

    Raises:
        SlmcError: a pin names a format that the layer cannot have, or no format is left.
    """
    options: dict[str, tuple[Choice, ...]] = {}
    for layer in tree.layers:
        if layer.path in pins:
            options[layer.path] = (_choice(format_named(pins[layer.path]), layer, method),)
        elif layer.sign_only:
            options[layer.path] = (_choice(SIGN, layer, method),)
        else:
            options[layer.path] = tuple(_choice(f, layer, method) for f in formats if f.name != SIGN.name)
        if not options[layer.path]:
            raise SlmcError(
                f"no format is left for layer {layer.path}; allow one with --formats, for example {FP32.name}"
            )
    return options


def _choice(fmt: Format, layer: Layer, method: str) -> Choice:
    if fmt.name == SIGN.name and not layer.sign_only:
        raise SlmcError(f"layer {layer.path}: format sign keeps only signs, and this layer needs more; choose another")
    if isinstance(fmt, EventFormat) and (layer.kind != "linear" or layer.table):
        raise SlmcError(
            f"layer {layer.path}: format {fmt.name} is for linear layers that share no matrix; choose {fmt.dense.name}"
        )
    if not isinstance(fmt, IntegerFormat | EventFormat):
        return Choice(fmt.name, "nearest")
    return Choice(fmt.name, "range" if layer.kind != "linear" and method_named(method).needs_hessian else method)
