"""Run a study: compress and evaluate every cell once, and keep the result."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from exporters.formats.dense import FP16, FP32
from toolchain.calibration.entropy import BINS, channel_entropies
from toolchain.calibration.hessian import input_hessians
from toolchain.compress.catalog import compress, pruner_named
from toolchain.compress.layer_statistics import LayerStatistics
from toolchain.compress.ordered import ORDERED, Ordered, ordered_named
from toolchain.compress.pruners import Pruner, Scored
from toolchain.compress.quantized_model import QuantizedModel
from toolchain.compress.recipe import LayerConfig
from toolchain.compress.scores import ESparse
from toolchain.files.progress import Progress
from toolchain.files.workspace import digest_of, write_whole
from toolchain.model.catalog import LoadedModel
from toolchain.model.layer_names import layers_named
from toolchain.model.text import Text
from toolchain.model.tree import Layer
from toolchain.quality.reference import Reference, bits_per_byte, stream_logits
from toolchain.study.cells import DISTIL, DUAL, GOALS, PRUNED, Cell
from toolchain.study.clock import CpuClock
from toolchain.study.dual import dual_inputs
from toolchain.study.formulas import ideal_bits, pattern_of, pruned_bits, throughput
from toolchain.study.results import Result, read_results
from toolchain.tuning.distil import Schedule, fake_quantized_layers, tune
from toolchain.tuning.parametrization import MaskedWeight, WeightParametrization
from toolchain.tuning.stage import LONGEST_PIECE, with_vectors

STUDY_VERSION = 1
"""Raised when a cell's result would be another one."""

SLOW = ("esparse-shuffle", "alps", "descent")
"""Methods that take minutes where others take seconds."""

TUNING_CHECKPOINTS = 25
"""Steps of tuning after which the seconds spent are written down, as tuning itself does with its state."""


SideBySide = Callable[[Sequence[Cell]], Iterable[tuple[Cell, Result]]]
"""Works cells out, and gives each with its result, in any order."""


@dataclass(frozen=True)
class Study:
    """What is looked at.

    calibration: what methods see; tuning: what distillation reads; evaluation: what is judged. layers: regular
    expression of the linear layers that are compressed; all else stays float32. steps: of distillation. bins, alpha: of
    E-Sparse's entropies and score.
    """

    model: LoadedModel
    calibration: Text
    tuning: Text
    evaluation: Text
    layers: str
    steps: int
    folder: Path
    bins: int = BINS
    alpha: float = ESparse.alpha

    @property
    def compressed(self) -> tuple[Layer, ...]:
        """The layers that are compressed.

        Raises:
            SlmcError: there is none.
        """
        linear = [layer for layer in self.model.tree.layers if layer.kind == "linear"]
        found = layers_named(self.layers, linear, "--layers")
        if not found:
            raise SlmcError(f"--layers {self.layers!r} matches no linear layer; see 'slmc inspect'")
        return tuple(found)

    def inputs(self) -> dict[str, object]:
        """What calibration and every result depend on."""
        return {
            "study": STUDY_VERSION, "slmc": version("slmc"), "model": self.model.sha256,
            "context": self.model.forward.context, "calibration": self.calibration.sha256,
            "calibration_tokens": len(self.calibration.ids), "bins": self.bins,
        }  # fmt: skip

    def key(self, cell: Cell) -> str:
        """A digest of all that a cell's result depends on."""
        tuned = {"tuning": self.tuning.sha256, "tokens": len(self.tuning.ids), "steps": self.steps}
        own = {
            "format": cell.format, "stages": cell.stages, "layers": [x.path for x in self.compressed],
            "evaluation": self.evaluation.sha256, "evaluation_tokens": len(self.evaluation.ids),
            "tuned": tuned if cell.tuned else None,
        }  # fmt: skip
        if cell.stages[0].startswith(ESparse.name) and self.alpha != ESparse.alpha:
            own["alpha"] = self.alpha
        return digest_of(self.inputs() | own)[:24]


def run_study(
    study: Study, cells: tuple[Cell, ...], progress: Progress, done: Callable[[Cell, Result], None],
    side_by_side: SideBySide | None = None,
) -> dict[Cell, Result]:  # fmt: skip
    """Every cell's result, those that take seconds first, tuned ones last; `done` hears of each once it is known.

    side_by_side: works cells out elsewhere, once the statistics lie in the study's folder.
    """
    study.folder.mkdir(parents=True, exist_ok=True)
    results = read_results(study.folder / "cells.jsonl")
    found: dict[Cell, Result] = {}

    def known(cell: Cell, result: Result) -> None:
        found[cell] = result
        done(cell, result)
        progress("cells", len(found), len(cells))

    open_cells = []
    for cell in sorted(cells, key=_when):
        result = results.get(study.key(cell))
        if result is None:
            open_cells.append(cell)
        else:
            known(cell, result)
    if open_cells:
        work = _one_by_one(study, progress) if side_by_side is None else side_by_side
        layer_statistics(study, progress)
        for cell, result in work(open_cells):
            known(cell, results.add(study.key(cell), result))
    return {cell: found[cell] for cell in cells}


def _one_by_one(study: Study, progress: Progress) -> SideBySide:
    def work(cells: Sequence[Cell]) -> Iterator[tuple[Cell, Result]]:
        runner = Runner(study, progress)
        for cell in cells:
            yield cell, runner.result(cell)

    return work


def _when(cell: Cell) -> tuple[bool, bool, bool]:
    """Order: fast cells first, tuned ones last, and of those first the ones that a goal needs."""
    return (
        cell.tuned,
        not cell.tuned and cell.stages[0] in SLOW,
        cell.format not in {goal.format for goal in GOALS},
    )


class Runner:
    """What all cells share: statistics, and the fp32 model's predictions."""

    def __init__(self, study: Study, progress: Progress) -> None:
        self.study, self.progress = study, progress
        self.statistics = layer_statistics(study, progress)
        self.reference = Reference(study.model.forward, study.evaluation.ids)

    def result(self, cell: Cell) -> Result:
        """Compress a cell, tune it if its stages say so, and evaluate it."""
        study, began = self.study, time.process_time()
        encoded = self._layerwise(cell)
        seconds = time.process_time() - began
        model = study.model
        if cell.tuned:
            model, encoded, spent = self._tuned(cell, encoded)
            seconds += spent
        recipe = {path: LayerConfig(e.format, "nearest") for path, e in encoded.items()}
        quantized = QuantizedModel(model, lambda path, _: encoded[path])
        with dual_inputs(quantized.module, encoded if DUAL in cell.stages else {}):
            score = self.reference.score(stream_logits(quantized.apply(recipe), study.evaluation.ids))
        params = sum(x.params for x in study.compressed)
        size = sum(e.nbytes for e in encoded.values())
        ideal = sum(ideal_bits(cell.format, x.cols) * x.params for x in study.compressed) / params
        return Result(
            format=cell.format,
            method=cell.method,
            stages=cell.stages,
            perplexity=score.perplexity,
            reference=score.reference,
            relative_drop=score.relative_drop,
            standard_error=score.standard_error,
            bits_per_byte=bits_per_byte(score.perplexity, score.tokens, study.evaluation.n_bytes),
            kl_mean=score.kl_mean,
            top1_agreement=score.top1_agreement,
            layer_error=self._layer_error(encoded),
            bytes=size,
            bits_per_weight=pruned_bits(cell.format) if _pruned(cell) else 8 * size / params,
            ideal_bits=ideal,
            throughput=throughput(cell.format),
            seconds=seconds,
        )

    def _layerwise(self, cell: Cell) -> dict[str, Encoded]:
        encoded, layers = {}, self.study.compressed
        for number, layer in enumerate(layers):
            weight = self.study.model.weight(layer.path)
            encoded[layer.path] = compressed(weight, cell, self.statistics[layer.path], self.study.alpha)
            self.progress(cell.name, number + 1, len(layers))
        return encoded

    def _tuned(self, cell: Cell, encoded: dict[str, Encoded]) -> tuple[LoadedModel, dict[str, Encoded], float]:
        """The model with its vectors as learned, the layers as learned, and the CPU seconds that it took."""
        study, model = self.study, self.study.model
        file = study.folder / f"tuning-{study.key(cell)}.pt"
        clock = CpuClock(file.with_suffix(".seconds"))
        rest = {x.path: FP32.encode(model.weight(x.path).numpy()) for x in model.tree.layers if x.path not in encoded}
        parametrizations = (
            _masked_weights(encoded) if _pruned(cell) else fake_quantized_layers(model, {**rest, **encoded})
        )

        def step(done: int, total: int) -> None:
            self.progress(f"{cell.name}, {DISTIL}", done, total)
            if done % TUNING_CHECKPOINTS == 0:
                clock.note()

        schedule, piece = Schedule(study.steps), tuning_piece(model)
        result = tune(model, {**rest, **encoded}, study.tuning.ids, schedule, file, step, parametrizations, piece)
        seconds = clock.note()
        for left in (file, clock.file):
            left.unlink(missing_ok=True)
        return with_vectors(model, result.vectors), {path: result.encoded[path] for path in encoded}, seconds

    def _layer_error(self, encoded: Mapping[str, Encoded]) -> float:
        """Mean over layers of tr(E H E^T) / tr(W H W^T): the mean squared error of the outputs beside their size."""
        shares = []
        for path, stored in encoded.items():
            weight, hessian = self.study.model.weight(path), self.statistics[path].hessian
            assert hessian is not None
            error = torch.from_numpy(format_named(stored.format).decode(stored)) - weight
            shares.append(float(((error @ hessian) * error).sum() / ((weight @ hessian) * weight).sum()))
        return sum(shares) / len(shares)


def tuning_piece(model: LoadedModel) -> int | None:
    """Tokens that a model with a context reads at once while it is tuned."""
    context = model.forward.context
    return min(LONGEST_PIECE, context) if context else None


def _pruned(cell: Cell) -> bool:
    return cell.format.endswith(f"/{PRUNED}")


def compressed(weight: Tensor, cell: Cell, statistics: LayerStatistics, alpha: float = ESparse.alpha) -> Encoded:
    """A matrix [rows, cols] after the first stage of a cell; pruned ones stand in fp16, zeros and all.

    alpha: of E-Sparse's score.
    """
    method = cell.stages[0]
    if not _pruned(cell):
        return compress(weight, LayerConfig(cell.format, method), statistics.hessian, statistics.entropy)
    keep, of = pattern_of(cell.format)
    pruner: Ordered | Pruner = ordered_named(method) if method in {o.name for o in ORDERED} else pruner_named(method)
    if isinstance(pruner, Ordered):
        pruner = dataclasses.replace(pruner, scored=_with_alpha(pruner.scored, alpha))
    elif isinstance(pruner, Scored):
        pruner = _with_alpha(pruner, alpha)
    return FP16.encode(pruner.prune(weight, keep, of, statistics).numpy())


def _with_alpha(scored: Scored, alpha: float) -> Scored:
    return Scored(ESparse(alpha)) if isinstance(scored.score, ESparse) else scored


def _masked_weights(encoded: Mapping[str, Encoded]) -> dict[str, WeightParametrization]:
    weights = {path: torch.from_numpy(FP16.decode(e)) for path, e in encoded.items()}
    return {path: MaskedWeight(weight, weight != 0) for path, weight in weights.items()}


def layer_statistics(study: Study, progress: Progress) -> dict[str, LayerStatistics]:
    """The calibration statistics of every compressed layer. The study's folder keeps them."""
    file = study.folder / f"statistics-{digest_of(study.inputs())[:12]}.safetensors"
    try:
        stored = load_file(file) if file.is_file() else None
    except (SafetensorError, OSError):
        stored = None
    if stored is None:
        model, ids = study.model, study.calibration.ids
        hessians = input_hessians(model, ids, lambda d, t: progress("calibration", d, t))
        entropies = channel_entropies(model, ids, study.bins, progress=lambda d, t: progress("entropies", d, t))
        stored = {f"hessian.{p}": t for p, t in hessians.items()} | {f"entropy.{p}": t for p, t in entropies.items()}
        write_whole(file, save(stored))
    return {x.path: LayerStatistics(stored[f"hessian.{x.path}"], stored[f"entropy.{x.path}"]) for x in study.compressed}
