"""Evaluation of a recipe: one forward pass of the quantized model over a text, remembered in the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from toolchain.calibration.statistics import CalibrationStatistics
from toolchain.compress.catalog import compress
from toolchain.compress.gptq import Gptq, inverse_factor
from toolchain.compress.quantized_model import QuantizedModel
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.model.catalog import LoadedModel
from toolchain.model.text import Reading
from toolchain.quality.accuracy import AnyReference, reference_for
from toolchain.quality.reference import Score, stream_logits
from toolchain.search.problem import LayerChoice
from toolchain.search.search import OutOfTime
from toolchain.search.sensitivity import activation_loss, expected_loss, feedback_loss, looked_up_loss
from toolchain.search.store import Journal, LayerStore, recipe_key

ESTIMATED_ROWS = 256
"""Rows of a large matrix that an estimate of its loss reads: the loss is a sum over rows."""

SHARED_ROWS = 16
"""The most rows that share a pattern in any format."""


class Workers(Protocol):
    """Processes that evaluate as this one does, several at a time."""

    def losses(self, wanted: Sequence[LayerChoice]) -> dict[LayerChoice, float]:
        """Evaluator.loss of each; the compressed layers are in the store afterwards."""

    def estimates(self, wanted: Sequence[LayerChoice]) -> dict[LayerChoice, float]:
        """Evaluator.estimate of each."""

    def scores(self, recipes: Sequence[Recipe]) -> Iterator[tuple[Recipe, Score]]:
        """The score of each, in the order in which they end; who stops reading needs no more."""


class ModelEvaluator:
    """Evaluations of a loaded model; implements toolchain.search.problem.Evaluator."""

    def __init__(
        self,
        model: LoadedModel,
        statistics: CalibrationStatistics,
        text: Reading,
        layers: LayerStore,
        journal: Journal,
        time_left: Callable[[], float] = lambda: float("inf"),
        workers: Workers | None = None,
    ) -> None:
        """text: what to evaluate on; time_left: seconds, asked before each evaluation; workers: who work out what is
        expected."""
        self._workers = workers
        self._losses: dict[LayerChoice, float] = {}
        self._estimates: dict[LayerChoice, float] = {}
        self._model, self._statistics, self._text = model, statistics, text
        self._layers, self._journal, self._time_left = layers, journal, time_left
        self._layers_by_path = {layer.path: layer for layer in model.tree.layers}
        self._quantized = QuantizedModel(model, layers.encoded)
        self._reference: AnyReference | None = None
        self._importance: dict[str, Tensor] = {}

    @property
    def reference(self) -> AnyReference:
        """The fp32 model's predictions on the text, made once."""
        self._reference = self._reference or reference_for(self._model.forward, self._text)
        return self._reference

    def expect(
        self, *, recipes: Sequence[Recipe] = (), losses: Sequence[LayerChoice] = (),
        estimates: Sequence[LayerChoice] = (),
    ) -> None:  # fmt: skip
        if self._workers is None:
            return
        self._losses |= self._workers.losses([x for x in dict.fromkeys(losses) if x not in self._losses])
        self._estimates |= self._workers.estimates([x for x in dict.fromkeys(estimates) if x not in self._estimates])
        unknown = {recipe_key(recipe): recipe for recipe in recipes if not self._journal.knows(recipe)}
        if unknown and self._time_left() > 0:
            for recipe, score in self._workers.scores(list(unknown.values())):
                self._journal.scored(recipe, lambda _, score=score: score)  # type: ignore[misc]
                if self._time_left() <= 0:
                    break

    def evaluate(self, recipe: Recipe) -> Score:
        return self._journal.scored(recipe, self.score)

    def loss(self, path: str, config: LayerConfig) -> float:
        if (path, config) not in self._losses:
            self._losses[path, config] = self._loss(path, config)
        return self._losses[path, config]

    def _loss(self, path: str, config: LayerConfig) -> float:
        encoded = self._layers.encoded(path, config)
        error = torch.from_numpy(format_named(encoded.format).decode(encoded)) - self._model.weight(path)
        layer = self._layers_by_path[path]
        loss = 0.0
        if layer.kind == "linear":
            hessian, fisher = self._statistics.hessians[path], self._statistics.fisher[path]
            loss, fmt = expected_loss(error, hessian, fisher), format_named(encoded.format)
            group = fmt.input_group(layer.cols)
            if config.activations == "int8" and group is not None:
                loss += activation_loss(self._model.weight(path), hessian, fisher, group)
        return loss + looked_up_loss(layer, error, self._statistics)

    def estimate(self, path: str, config: LayerConfig) -> float:
        if (path, config) not in self._estimates:
            self._estimates[path, config] = self._estimate(path, config)
        return self._estimates[path, config]

    def _estimate(self, path: str, config: LayerConfig) -> float:
        layer, weight, fmt = self._layers_by_path[path], self._model.weight(path), format_named(config.format)
        plain = layer.kind == "linear" and layer.table is None
        rows = (
            estimated_rows(layer.rows) if plain and fmt.takes(ESTIMATED_ROWS, layer.cols) else torch.arange(layer.rows)
        )
        weight = weight[rows]
        error = torch.from_numpy(fmt.decode(fmt.encode(weight.numpy()))) - weight
        if plain:
            fisher = self._statistics.fisher[path]
            share = float(fisher[rows].sum() / fisher.sum().clamp_min(torch.finfo(torch.float32).tiny))
            return feedback_loss(error, self._importance_of(path), fisher[rows]) / share if share else 0.0
        loss = looked_up_loss(layer, error, self._statistics)
        if layer.kind == "linear":
            loss += feedback_loss(error, self._importance_of(path), self._statistics.fisher[path])
        return loss

    def _importance_of(self, path: str) -> Tensor:
        """1 / U_jj^2 of a layer's inputs, [cols]."""
        if path not in self._importance:
            factor = inverse_factor(self._statistics.hessians[path], Gptq.damping)
            self._importance[path] = factor.diagonal().square().reciprocal()
        return self._importance[path]

    def kurtosis(self, path: str) -> float:
        weight = self._model.weight(path)
        apart = (weight - weight.mean()).square()
        return float(apart.square().mean() / apart.mean().square())

    def score(self, recipe: Recipe) -> Score:
        """Of a total recipe, past the journal.

        Raises:
            OutOfTime: no time is left.
        """
        if self._time_left() <= 0:
            raise OutOfTime
        reference = self.reference
        return reference.score(stream_logits(self._quantized.apply(recipe), self._text), known_alone=True)


def estimated_rows(rows: int) -> Tensor:
    """The rows of a matrix that an estimate reads, int64: all, or ESTIMATED_ROWS in even blocks.

    Blocks keep rows together that share a pattern.
    """
    if rows < 2 * ESTIMATED_ROWS:
        return torch.arange(rows)
    blocks, shared = ESTIMATED_ROWS // SHARED_ROWS, rows // SHARED_ROWS
    first = torch.arange(blocks) * shared // blocks * SHARED_ROWS
    return (first[:, None] + torch.arange(SHARED_ROWS)).flatten()


def layer_maker(model: LoadedModel, statistics: CalibrationStatistics) -> Callable[[str, LayerConfig], Encoded]:
    """The function that compresses one layer of a model in one choice."""
    return lambda path, config: compress(
        model.weight(path), config, statistics.hessians.get(path), statistics.entropies.get(path)
    )
