"""The input of a search: the layers with their options, the constraints, and how to evaluate a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Format, bytes_for
from exporters.formats.catalog import format_named
from exporters.formats.dense import FP32
from toolchain.compress.catalog import method_for
from toolchain.compress.lookup import named
from toolchain.compress.pruners import PRUNERS
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.model.tree import Layer, ModelTree
from toolchain.quality.reference import Score
from toolchain.search.times import Times


@dataclass(frozen=True)
class Constraints:
    """Upper bounds: bytes of weights and states as stored; relative loss of the metric; predicted milliseconds per
    token, if the target has measured costs. None means no bound."""

    max_bytes: int | None
    max_drop: float | None
    max_ms: float | None = None


@dataclass(frozen=True)
class Effort:
    """How much a search spends.

    calibration_tokens, evaluation_tokens: how much of the texts is read; budgets: points of the byte ladder;
    bisections: budgets tried between a feasible and an infeasible one; method: of rounding to integers; refines:
    whether layers are compressed again after the search.
    """

    name: str
    calibration_tokens: int
    evaluation_tokens: int
    budgets: int
    bisections: int
    method: str
    formats: tuple[str, ...]
    refines: bool = True


METHOD_MARK = "@"
"""Between a pinned format and a method of its own: 2:4/int4-g64@sparsegpt."""

SPARSE_HANDFUL = (
    "1:8/int8+6:8/fp4-g16", "fp4-g16", "6:8/int4-g64", "2:4/int4-g64", "4:8x16/int4-g64", "14:16x16/int3-g256",
    "14:16x16/int2-g256", "12:16x16/int2-g256", "8:16x16/int2-g256", "2:8/int2-g256", "1:4/int2-g256",
)  # fmt: skip
"""Some of every family."""

EFFORTS = (
    Effort(
        name="quick", calibration_tokens=1024, evaluation_tokens=1024, budgets=4, bisections=2, method="range",
        formats=("int8", "int6-g64", "int4-g64", "int3-g64", "int2-g64"), refines=False,
    ),
    Effort(
        name="default", calibration_tokens=16384, evaluation_tokens=16384, budgets=12, bisections=5, method="gptq",
        formats=("fp32", "fp16", "int*", "uint*", "nl*", *SPARSE_HANDFUL),
    ),
    Effort(
        name="thorough", calibration_tokens=65536, evaluation_tokens=65536, budgets=20, bisections=10, method="gptq",
        formats=("*",),
    ),
)  # fmt: skip


def effort_named(name: str) -> Effort:
    """The effort of that name.

    Raises:
        SlmcError: there is none.
    """
    return named(EFFORTS, name, "effort")


LayerChoice = tuple[str, LayerConfig]
"""A layer by its path, in one config."""


class Evaluator(Protocol):
    """How recipes and layers are evaluated."""

    def evaluate(self, recipe: Recipe) -> Score:
        """Of a total recipe, on the evaluation text; remembered."""
        ...

    def loss(self, path: str, config: LayerConfig) -> float:
        """Expected loss of one layer alone in a choice, nats per token."""
        ...

    def estimate(self, path: str, config: LayerConfig) -> float:
        """The same without compressing it; only for comparing the options of one layer."""
        ...

    def kurtosis(self, path: str) -> float:
        """E (w - E w)^4 / (E (w - E w)^2)^2 of a layer's weights."""
        ...

    def expect(
        self, *, recipes: Sequence[Recipe] = (), losses: Sequence[LayerChoice] = (),
        estimates: Sequence[LayerChoice] = (),
    ) -> None:  # fmt: skip
        """Say what will be asked for next: with workers it is worked out by all of them at once. Answers are the same
        with and without."""
        ...


@dataclass(frozen=True)
class Problem:
    """A model to be compressed.

    options: every layer's choices, many bits first; a pinned layer has one. activations: whether products round their
    inputs: fp32, int8, or search (see activations.py). times: predicted on the target, None without measured costs.
    wider: formats of more bits than the options have, and everything in them: tried if nothing else keeps the limits.
    """

    tree: ModelTree
    options: Mapping[str, tuple[LayerConfig, ...]]
    constraints: Constraints
    effort: Effort
    seed: int
    activations: str = "fp32"
    times: Times | None = None
    wider: tuple[tuple[str, Recipe], ...] = ()

    def predicted_ms(self, recipe: Recipe) -> float | None:
        """Time per token of a recipe, where the target has measured costs."""
        return self.times.of(recipe) if self.times else None

    def layer_bytes(self, layer: Layer, config: LayerConfig) -> int:
        return bytes_for(format_named(config.format), layer.rows, layer.cols)

    def bytes(self, recipe: Recipe) -> int:
        """Weights and states as stored, what no format changes included."""
        return self.tree.fixed_bytes + sum(self.layer_bytes(layer, recipe[layer.path]) for layer in self.tree.layers)

    @property
    def smallest_bytes(self) -> int:
        options = ((layer, self.options[layer.path]) for layer in self.tree.layers)
        return self.tree.fixed_bytes + sum(min(self.layer_bytes(layer, c) for c in some) for layer, some in options)


def layer_options(
    tree: ModelTree, formats: Sequence[Format], pins: Mapping[str, str], method: str
) -> dict[str, tuple[LayerConfig, ...]]:
    """What every layer may become. A layer that a format keeps exactly is stored in that one.

    pins: layer path -> format name, or format@method; a pinned layer has no other option.

    Raises:
        SlmcError: a pin names a format that the layer cannot have, or no format is left.
    """
    options: dict[str, tuple[LayerConfig, ...]] = {}
    for layer in tree.layers:
        if layer.path in pins:
            name, _, own = pins[layer.path].partition(METHOD_MARK)
            options[layer.path] = (_config(format_named(name), layer, method, own),)
        elif layer.exact:
            options[layer.path] = (_config(format_named(layer.exact), layer, method),)
        else:
            able = layer.kind == "linear" and not layer.table
            allowed = (f for f in formats if not f.exact_only and (able or not f.linear_only))
            options[layer.path] = tuple(_config(f, layer, method) for f in allowed if f.takes(layer.rows, layer.cols))
        if not options[layer.path]:
            raise SlmcError(
                f"no format is left for layer {layer.path}; allow one with --formats, for example {FP32.name}"
            )
    return options


def _config(fmt: Format, layer: Layer, method: str, own: str = "") -> LayerConfig:
    """A layer in a format by the method of the whole model, or by its own, if it has one."""
    if fmt.exact_only and layer.exact != fmt.name:
        raise SlmcError(
            f"layer {layer.path}: format {fmt.name} is for layers that lose nothing in it, and this one would; choose "
            "another"
        )
    if layer.exact and layer.kind == "linear" and layer.exact != fmt.name:
        raise SlmcError(
            f"layer {layer.path}: its product is that of format {layer.exact}, which rounds the inputs too; {fmt.name} "
            "computes another function; leave the layer out"
        )
    if fmt.linear_only and (layer.kind != "linear" or layer.table):
        instead = "int4-g64" if fmt.plain.linear_only else fmt.plain.name
        raise SlmcError(
            f"layer {layer.path}: format {fmt.name} is for linear layers that share no matrix; choose {instead}"
        )
    if not fmt.takes(layer.rows, layer.cols):
        raise SlmcError(
            f"layer {layer.path}: format {fmt.name} cannot store {layer.rows} x {layer.cols}; a diagonal needs a "
            "square matrix, low rank a larger one; choose another"
        )
    chosen = method_for(own or method, fmt, linear=layer.kind == "linear")
    if own and chosen != own:
        raise SlmcError(
            f"layer {layer.path}: method {own} cannot bring it into format {fmt.name}; {chosen} can, see --method"
        )
    return LayerConfig(fmt.name, chosen)


def needs_entropy(problem: Problem) -> bool:
    """Whether any layer may be pruned by a method that looks at the entropy of its inputs."""
    named = {config.method for options in problem.options.values() for config in options}
    return any(p.needs_entropy for p in PRUNERS if p.name in named)
