"""End-to-end tuning: the compressed model learns to predict what the fp32 model predicts, its formats unchanged."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from exporters.errors import SlmcError
from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from toolchain.model.catalog import LoadedModel
from toolchain.model.family import LanguageModel
from toolchain.model.sentences import Sentences
from toolchain.model.text import Reading
from toolchain.tuning.learner import Learner
from toolchain.tuning.rounded import Rounded, stored_parts

Progress = Callable[[int, int], None]

SENTENCES = 64
"""Sentences of one length that a step of a classifier's tuning reads side by side."""

CHECKPOINT_STEPS = 25
"""The work of at most so many steps is lost when a build is interrupted."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to tune.

    Each step reads `streams` pieces of `window` tokens; states are carried from piece to piece within a context.
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

    def height(self, step: int) -> float:
        """Share of the full learning rates at a step, counted from 0."""
        return (self.last + (1 - self.last) * (1 - step / self.steps)) * min(1.0, (step + 1) / self.warm_up)

    @property
    def tokens(self) -> int:
        return self.steps * self.streams * self.window


@dataclass(frozen=True)
class Tuned:
    """What tuning gives back: the layers in the formats they had, and the vectors, which no format changes.

    losses: mean KL(fp32 || compressed) of every step, nats per token.
    """

    encoded: dict[str, Encoded]
    vectors: dict[str, Tensor]
    losses: tuple[float, ...]


def tune(
    model: LoadedModel,
    encoded: Mapping[str, Encoded],
    ids: Reading,
    schedule: Schedule,
    checkpoint: Path,
    progress: Progress = lambda done, total: None,
    learners: Mapping[str, Learner] | None = None,
) -> Tuned:
    """Minimise mean KL(p_fp32 || p_compressed) per token over a text, by gradients through rounding and spikes; of a
    classifier, of the class probabilities, per sentence.

    Knowledge distillation into the integers themselves: what EfficientQAT (arXiv 2407.11062) does block by block and
    then for scales alone is done here for the whole model at once, which small models allow.

    Args:
        encoded: every layer as compressed so far; layers in formats that cannot learn stay as they are.
        ids: token ids int64 [n], or sentences; read over and over if the schedule needs more.
        checkpoint: a file that holds the state of the work, read if it is there; the caller removes it.
        learners: what learns in place of which layer's weight; every linear layer whose format can, if not given.

    Raises:
        SlmcError: the text is too short for one step, or the loss is not finite.
    """
    if len(ids) < schedule.streams * 2:
        raise SlmcError(f"the calibration text has {len(ids)} tokens; tuning needs {schedule.streams * 2} or more")
    learners = rounded_layers(model, encoded) if learners is None else learners
    student = _Student(model, encoded, learners, schedule)
    run = _Run(model, student, ids, schedule)
    run.restore(checkpoint)
    while run.step < schedule.steps:
        run.advance()
        if run.step % CHECKPOINT_STEPS == 0:
            run.save(checkpoint)
        progress(run.step, schedule.steps)
    return Tuned(student.stored(encoded), student.vectors(), tuple(run.losses))


def rounded_layers(model: LoadedModel, encoded: Mapping[str, Encoded]) -> dict[str, Learner]:
    """A learner for every linear layer that is stored in a format that can learn."""
    linear = [layer.path for layer in model.tree.layers if layer.kind == "linear"]
    return {path: Rounded(encoded[path], model.weight(path)) for path in linear if stored_parts(encoded[path])}


class _Student:
    """A twin of the model in which learners stand for weights, and whose vectors learn."""

    def __init__(
        self, model: LoadedModel, encoded: Mapping[str, Encoded], learners: Mapping[str, Learner], schedule: Schedule
    ) -> None:
        self.module, self.learners = copy.deepcopy(model.module), learners
        layers = {f"{path}.weight" for layer in model.tree.layers for path in (layer.path, layer.table) if path}
        self.vector_names = [n for n, _ in self.module.named_parameters() if n not in layers]
        for name in self.vector_names:
            self.module.get_parameter(name).requires_grad_(True)
        for layer in model.tree.layers:
            for holder in (self.module.get_submodule(path) for path in (layer.path, layer.table) if path):
                if layer.path in learners:
                    parametrize.register_parametrization(holder, "weight", _Instead(learners[layer.path]), unsafe=True)
                else:
                    stored = encoded[layer.path]
                    decoded = torch.from_numpy(format_named(stored.format).decode(stored))
                    holder.weight = nn.Parameter(decoded, requires_grad=False)
        self.optimiser = torch.optim.Adam(self._groups(schedule), betas=(0.9, 0.95))

    def _groups(self, schedule: Schedule) -> list[dict[str, Any]]:
        latents = [learner.latent for learner in self.learners.values()]
        scales = [scale for learner in self.learners.values() for scale in learner.scales]
        vectors = [self.module.get_parameter(name) for name in self.vector_names]
        rates = ((latents, schedule.rate), (scales, schedule.scale_rate), (vectors, schedule.rate))
        return [{"params": some, "rate": rate, "lr": rate} for some, rate in rates if some]

    @property
    def forward(self) -> LanguageModel:
        return cast(LanguageModel, self.module)

    def stored(self, before: Mapping[str, Encoded]) -> dict[str, Encoded]:
        return {**before, **{path: learner.stored() for path, learner in self.learners.items()}}

    def vectors(self) -> dict[str, Tensor]:
        return {name: self.module.get_parameter(name).detach().clone() for name in self.vector_names}


class _Instead(nn.Module):
    """A parametrization that does not look at the weight it replaces."""

    def __init__(self, source: Learner) -> None:
        super().__init__()
        self.source = source

    def forward(self, _weight: Tensor) -> Tensor:
        weight: Tensor = self.source()
        return weight


class _Run:
    """Where a tuning stands: the step, both models' states, the optimiser."""

    def __init__(self, model: LoadedModel, student: _Student, ids: Reading, schedule: Schedule) -> None:
        self._model, self._student, self._schedule = model, student, schedule
        streams, self._context = schedule.streams, model.forward.context
        self._sentences = ids if isinstance(ids, Sentences) else None
        self.step, self._at = 0, 0
        self.losses: list[float] = []
        self._state: list[Tensor] = []
        self._teacher_state: list[Tensor] = []
        if isinstance(ids, Sentences):
            self._batches = ids.batches(SENTENCES)
            return
        length = len(ids) // streams
        if self._context and length > self._context:
            length -= length % self._context  # every stream begins where a context does
        self._text = ids[: length * streams].view(streams, -1)
        self._rewind()

    def _rewind(self) -> None:
        self._at = 0
        self._forget(self._schedule.streams)

    def _forget(self, streams: int) -> None:
        self._state = self._student.forward.initial_state(streams)
        self._teacher_state = self._model.forward.initial_state(streams)

    def advance(self) -> None:
        """One step over the next piece of every stream, or the next batch of sentences."""
        piece = self._next_piece() if self._sentences is None else self._next_batch(self._sentences)
        with torch.no_grad():
            wanted, self._teacher_state = self._model.forward(piece, self._teacher_state)
        given, state = self._student.forward(piece, self._state)
        self._state = [s.detach() for s in state]
        loss = functional.kl_div(
            torch.log_softmax(given, -1).flatten(0, 1), torch.log_softmax(wanted, -1).flatten(0, 1),
            log_target=True, reduction="batchmean",
        )  # fmt: skip
        if not math.isfinite(loss.item()):
            raise SlmcError(f"tuning: the loss is not finite at step {self.step}; lower the rate with --tune-rate")
        self._learn(loss)

    def _next_batch(self, sentences: Sentences) -> Tensor:
        """The batches of every pass in an order of its own, each from an empty state."""
        passed, index = divmod(self._at, len(self._batches))
        order = torch.randperm(len(self._batches), generator=torch.Generator().manual_seed(passed))
        piece = sentences.stacked(self._batches[int(order[index])])
        self._at += 1
        self._forget(len(piece))
        return piece

    def _next_piece(self) -> Tensor:
        if self._at >= self._text.shape[1]:
            self._rewind()
        end = self._at + self._schedule.window
        if self._context:
            if self._at % self._context == 0:
                self._forget(self._schedule.streams)
            end = min(end, (self._at // self._context + 1) * self._context)
        piece = self._text[:, self._at : end]
        self._at += piece.shape[1]
        return piece

    def _learn(self, loss: Tensor) -> None:
        optimiser = self._student.optimiser
        for group in optimiser.param_groups:
            group["lr"] = group["rate"] * self._schedule.height(self.step)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        self.losses.append(loss.item())
        self.step += 1

    def save(self, file: Path) -> None:
        partial = file.with_suffix(".partial")
        torch.save(
            {
                "step": self.step, "at": self._at, "losses": self.losses, "state": self._state,
                "teacher_state": self._teacher_state, "module": self._student.module.state_dict(),
                "optimiser": self._student.optimiser.state_dict(),
            },
            partial,
        )  # fmt: skip
        partial.replace(file)

    def restore(self, file: Path) -> None:
        """Go on where a saved run stood, if there is one that can be read."""
        if not file.is_file():
            return
        try:
            saved = torch.load(file, weights_only=True)
        except (OSError, RuntimeError, EOFError):
            return
        self._student.module.load_state_dict(saved["module"])
        self._student.optimiser.load_state_dict(saved["optimiser"])
        self.step, self._at, self.losses = saved["step"], saved["at"], saved["losses"]
        self._state, self._teacher_state = saved["state"], saved["teacher_state"]
