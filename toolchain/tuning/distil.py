"""End-to-end tuning: the fp32 model is distilled into the compressed model, whose formats do not change."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from toolchain.files.progress import StepProgress
from toolchain.files.workspace import whole_file
from toolchain.model.catalog import LoadedModel
from toolchain.model.family import LanguageModel
from toolchain.model.sentences import Sentences
from toolchain.model.text import Reading
from toolchain.tuning.batch_sampler import BatchSampler, PieceSampler, SentenceSampler, StreamSampler, held_out_tokens
from toolchain.tuning.corrected import parametrization_for
from toolchain.tuning.held_out import HeldOut
from toolchain.tuning.objective import DISTRIBUTION, Objective
from toolchain.tuning.parametrization import WeightParametrization

CHECKPOINT_STEPS = 25
"""Steps between checkpoints: an interrupted build loses at most this many."""

SENTENCES = 64
"""Sentences of equal length per step of tuning a classifier."""

LOOKS = 4
"""Evaluations on held-out text during a tuning, in addition to the one at its end."""


@dataclass(frozen=True)
class Schedule:
    """Length, learning rates and objective of a tuning.

    Each step reads `streams` windows of `window` tokens with carried states. A model with a context reads about as
    many tokens, in whole pieces from empty states, in a new random order in every pass.

    Attributes:
        rate: Adam's learning rate of latent weights and vectors (norms, mixes, biases).
        scale_rate: that of scales.
        warm_up: steps over which the rates rise linearly.
        last: share of the full rates at the end; they fall linearly.
    """

    steps: int
    streams: int = 16
    window: int = 128
    rate: float = 5e-4
    scale_rate: float = 5e-5
    warm_up: int = 20
    last: float = 0.02
    objective: Objective = DISTRIBUTION

    def height(self, step: int) -> float:
        """The share of the full learning rates at a step, counted from 0."""
        return (self.last + (1 - self.last) * (1 - step / self.steps)) * min(1.0, (step + 1) / self.warm_up)

    @property
    def tokens(self) -> int:
        """Tokens that all steps read."""
        return self.steps * self.streams * self.window


@dataclass(frozen=True)
class Tuned:
    """The result of a tuning: the best state on held-out text.

    Attributes:
        encoded: the layers in the formats they had.
        vectors: norms, mixes and biases, by parameter name.
        losses: the objective at every step, in nats per token.
        held_out: the objective on held-out text, in nats per token, by step.
    """

    encoded: dict[str, Encoded]
    vectors: dict[str, Tensor]
    losses: tuple[float, ...]
    held_out: dict[int, float]


def tune(
    model: LoadedModel,
    encoded: Mapping[str, Encoded],
    ids: Reading,
    schedule: Schedule,
    checkpoint: Path,
    progress: StepProgress = lambda done, total: None,
    parametrizations: Mapping[str, WeightParametrization] | None = None,
    piece: int | None = None,
) -> Tuned:
    """Minimise the schedule's objective over a text, with gradients through rounding and spikes.

    The loss is per token; for a classifier it is that of the class probabilities, per sentence. This is
    quantization-aware training by knowledge distillation. EfficientQAT (arXiv 2407.11062) trains block by block and
    then the scales alone; small models can be trained as a whole.

    Args:
        encoded: every compressed layer. Layers in formats that cannot be trained do not change.
        ids: token ids int64 [n], or sentences. They are read repeatedly if the schedule needs more.
        checkpoint: file with the state of the run. It is read if it exists; the caller removes it.
        progress: called with the steps done and the total.
        parametrizations: by layer path; by default one for every linear layer whose format can be trained.
        piece: for a model with a context, tokens per piece of the text; by default the context.

    Raises:
        SlmcError: the text is too short for one step, or the loss is not finite.
    """
    if len(ids) < schedule.streams * 2:
        raise SlmcError(f"the calibration text has {len(ids)} tokens; tuning needs {schedule.streams * 2} or more")
    parametrizations = fake_quantized_layers(model, encoded) if parametrizations is None else parametrizations
    student = _Student(model, encoded, parametrizations, schedule)
    sampler, held_out, length = _sampler(ids, piece or model.forward.context or 0, schedule)
    judge = HeldOut(model.forward, held_out, length, schedule.objective)
    run = _Run(model, student, sampler, schedule)
    run.restore(checkpoint, judge)
    every = max(1, schedule.steps // LOOKS)
    while run.step < schedule.steps:
        if run.step % every == 0 and run.step not in judge.seen:
            judge.look(run.step, student.forward, student.parameters)
        run.advance()
        if run.step % CHECKPOINT_STEPS == 0:
            run.save(checkpoint, judge)
        progress(run.step, schedule.steps)
    judge.look(run.step, student.forward, student.parameters)
    judge.restore_best(student.parameters)
    return Tuned(student.stored(encoded), student.vectors(), tuple(run.losses), dict(judge.seen))


def _sampler(ids: Reading, piece: int, schedule: Schedule) -> tuple[BatchSampler, Tensor, int]:
    """The sampler, the held-out token ids (none for sentences), and tokens per piece (0: no pieces)."""
    if isinstance(ids, Sentences):
        return SentenceSampler(ids, SENTENCES), ids.ids[:0], 0
    length = min(piece, len(ids))
    ids = ids[: len(ids) // length * length] if length else ids
    held = held_out_tokens(len(ids), length)
    train, held_out = ids[: len(ids) - held], ids[len(ids) - held :]
    if length:
        rows = max(1, schedule.streams * schedule.window // length)
        return PieceSampler(train.view(-1, length), rows), held_out, length
    whole = train[: len(train) // schedule.streams * schedule.streams]
    return StreamSampler(whole.view(schedule.streams, -1), schedule.window), held_out, 0


def fake_quantized_layers(model: LoadedModel, encoded: Mapping[str, Encoded]) -> dict[str, WeightParametrization]:
    """A parametrization for every linear layer whose format can be trained, by layer path."""
    linear = [layer.path for layer in model.tree.layers if layer.kind == "linear"]
    able = [path for path in linear if format_named(encoded[path].format).parts]
    return {path: parametrization_for(encoded[path], model.weight(path)) for path in able}


class _Student:
    """A copy of the model with parametrized weights and trainable vectors."""

    def __init__(
        self,
        model: LoadedModel,
        encoded: Mapping[str, Encoded],
        parametrizations: Mapping[str, WeightParametrization],
        schedule: Schedule,
    ) -> None:
        self.module, self.parametrizations = copy.deepcopy(model.module), parametrizations
        layers = {f"{path}.weight" for layer in model.tree.layers for path in (layer.path, layer.table) if path}
        self.vector_names = [n for n, _ in self.module.named_parameters() if n not in layers]
        for name in self.vector_names:
            self.module.get_parameter(name).requires_grad_(True)
        for layer in model.tree.layers:
            for holder in (self.module.get_submodule(path) for path in (layer.path, layer.table) if path):
                if layer.path in parametrizations:
                    parametrize.register_parametrization(
                        holder, "weight", _Replacement(parametrizations[layer.path]), unsafe=True
                    )
                else:
                    stored = encoded[layer.path]
                    decoded = torch.from_numpy(format_named(stored.format).decode(stored))
                    holder.weight = nn.Parameter(decoded, requires_grad=False)
        self.optimiser = torch.optim.Adam(self._groups(schedule), betas=(0.9, 0.95))

    def _groups(self, schedule: Schedule) -> list[dict[str, Any]]:
        latents = [parametrization.latent for parametrization in self.parametrizations.values()]
        scales = [scale for parametrization in self.parametrizations.values() for scale in parametrization.scales]
        vectors = [self.module.get_parameter(name) for name in self.vector_names]
        rates = ((latents, schedule.rate), (scales, schedule.scale_rate), (vectors, schedule.rate))
        return [{"params": some, "rate": rate, "lr": rate} for some, rate in rates if some]

    @property
    def parameters(self) -> list[Tensor]:
        """All trainable parameters."""
        return [p for group in self.optimiser.param_groups for p in group["params"]]

    @property
    def forward(self) -> LanguageModel:
        return cast(LanguageModel, self.module)

    def stored(self, before: Mapping[str, Encoded]) -> dict[str, Encoded]:
        return {**before, **{path: parametrization.stored() for path, parametrization in self.parametrizations.items()}}

    def vectors(self) -> dict[str, Tensor]:
        return {name: self.module.get_parameter(name).detach().clone() for name in self.vector_names}


class _Replacement(nn.Module):
    """Adapter for torch's parametrizations, which pass the weight that is replaced."""

    def __init__(self, source: WeightParametrization) -> None:
        super().__init__()
        self.source = source

    def forward(self, _weight: Tensor) -> Tensor:
        weight: Tensor = self.source()
        return weight


class _Run:
    """The state of a tuning: step, recurrent states of both models, optimiser."""

    def __init__(self, model: LoadedModel, student: _Student, sampler: BatchSampler, schedule: Schedule) -> None:
        self._model, self._student, self._sampler, self._schedule = model, student, sampler, schedule
        self.step = 0
        self.losses: list[float] = []
        self._state: list[Tensor] = []
        self._teacher_state: list[Tensor] = []

    def advance(self) -> None:
        """Read one batch and update the parameters."""
        piece, fresh = self._sampler.at(self.step)
        if fresh:
            self._state = self._student.forward.initial_state(len(piece))
            self._teacher_state = self._model.forward.initial_state(len(piece))
        with torch.no_grad():
            wanted, self._teacher_state = self._model.forward(piece, self._teacher_state)
        given, state = self._student.forward(piece, self._state)
        self._state = [s.detach() for s in state]
        loss = self._schedule.objective(wanted, given)
        if not math.isfinite(loss.item()):
            raise SlmcError(f"tuning: the loss is not finite at step {self.step}; the text or the model is damaged")
        self._learn(loss)

    def _learn(self, loss: Tensor) -> None:
        optimiser = self._student.optimiser
        for group in optimiser.param_groups:
            group["lr"] = group["rate"] * self._schedule.height(self.step)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        self.losses.append(loss.item())
        self.step += 1

    def save(self, file: Path, judge: HeldOut) -> None:
        """Write a checkpoint."""
        saved = {
            "step": self.step, "losses": self.losses, "state": self._state, "seen": judge.seen, "best": judge.best,
            "teacher_state": self._teacher_state, "module": self._student.module.state_dict(),
            "optimiser": self._student.optimiser.state_dict(),
        }  # fmt: skip
        with whole_file(file) as out:
            torch.save(saved, out)

    def restore(self, file: Path, judge: HeldOut) -> None:
        """Continue a saved run, if there is one that can be read."""
        if not file.is_file():
            return
        try:
            saved = torch.load(file, weights_only=True)
        except (OSError, RuntimeError, EOFError):
            return
        self._student.module.load_state_dict(saved["module"])
        self._student.optimiser.load_state_dict(saved["optimiser"])
        self.step, self.losses = saved["step"], saved["losses"]
        self._state, self._teacher_state = saved["state"], saved["teacher_state"]
        judge.seen, judge.best = saved["seen"], saved["best"]
