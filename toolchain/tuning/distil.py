"""End-to-end tuning: the compressed model learns to predict what the fp32 model predicts, its formats unchanged."""

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
"""The work of at most so many steps is lost when a build is interrupted."""

SENTENCES = 64
"""Sentences of one length that a step of a classifier's tuning reads side by side."""

LOOKS = 4
"""How often on its way a tuning is judged on held-out text, beside its end."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to tune, and toward what.

    Each step reads `streams` pieces of `window` tokens, states carried from piece to piece. If the model has a context
    it reads about as many tokens, in whole pieces from empty states, in an order drawn anew for each pass.
    Learning rates are Adam's: of latent weights and of vectors (norms, mixes, biases), and of scales. They rise over
    `warm_up` steps and fall linearly to `last` of their height.
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
        """Share of the full learning rates at a step, counted from 0."""
        return (self.last + (1 - self.last) * (1 - step / self.steps)) * min(1.0, (step + 1) / self.warm_up)

    @property
    def tokens(self) -> int:
        return self.steps * self.streams * self.window


@dataclass(frozen=True)
class Tuned:
    """What tuning gives back: the layers in the formats they had, and the vectors, which no format changes.

    losses: the objective at every step, nats per token; held_out: the same on the held-out end of the
    text, by the step after which it was taken. What is given back is the best of these.
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
    """Minimise the schedule's objective per token over a text, by gradients through rounding and spikes; of a
    classifier, of the class probabilities, per sentence.

    Knowledge distillation into the integers themselves: what EfficientQAT (arXiv 2407.11062) does block by block and
    then for scales alone is done here for the whole model at once, which small models allow.

    Args:
        encoded: every layer as compressed so far; layers in formats that cannot learn stay as they are.
        ids: token ids int64 [n], or sentences; read over and over if the schedule needs more.
        checkpoint: a file that holds the state of the work, read if it is there; the caller removes it.
        parametrizations: by layer path; by default one for every linear layer whose format can learn.
        piece: of a model with a context, tokens that the text has been cut into; its context if not given.

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
    """What the steps read, what is held out of it (of sentences nothing), and its pieces' length, 0 if it has none."""
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
    """A parametrization for every linear layer that is stored in a format that can learn."""
    linear = [layer.path for layer in model.tree.layers if layer.kind == "linear"]
    able = [path for path in linear if format_named(encoded[path].format).parts]
    return {path: parametrization_for(encoded[path], model.weight(path)) for path in able}


class _Student:
    """A twin of the model in which parametrizations stand for weights, and whose vectors learn."""

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
                        holder, "weight", _Instead(parametrizations[layer.path]), unsafe=True
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
        """All that learns."""
        return [p for group in self.optimiser.param_groups for p in group["params"]]

    @property
    def forward(self) -> LanguageModel:
        return cast(LanguageModel, self.module)

    def stored(self, before: Mapping[str, Encoded]) -> dict[str, Encoded]:
        return {**before, **{path: parametrization.stored() for path, parametrization in self.parametrizations.items()}}

    def vectors(self) -> dict[str, Tensor]:
        return {name: self.module.get_parameter(name).detach().clone() for name in self.vector_names}


class _Instead(nn.Module):
    """A parametrization that does not look at the weight it replaces."""

    def __init__(self, source: WeightParametrization) -> None:
        super().__init__()
        self.source = source

    def forward(self, _weight: Tensor) -> Tensor:
        weight: Tensor = self.source()
        return weight


class _Run:
    """Where a tuning stands: the step, both models' states, the optimiser."""

    def __init__(self, model: LoadedModel, student: _Student, sampler: BatchSampler, schedule: Schedule) -> None:
        self._model, self._student, self._sampler, self._schedule = model, student, sampler, schedule
        self.step = 0
        self.losses: list[float] = []
        self._state: list[Tensor] = []
        self._teacher_state: list[Tensor] = []

    def advance(self) -> None:
        """One step over what it reads."""
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
        saved = {
            "step": self.step, "losses": self.losses, "state": self._state, "seen": judge.seen, "best": judge.best,
            "teacher_state": self._teacher_state, "module": self._student.module.state_dict(),
            "optimiser": self._student.optimiser.state_dict(),
        }  # fmt: skip
        with whole_file(file) as out:
            torch.save(saved, out)

    def restore(self, file: Path, judge: HeldOut) -> None:
        """Go on where a saved run stood, if there is one that can be read."""
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
