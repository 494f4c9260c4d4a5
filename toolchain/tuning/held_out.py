"""Evaluation on held-out text: which state of a tuning is the best."""

from __future__ import annotations

import torch
from torch import Tensor

from toolchain.model.family import LanguageModel
from toolchain.tuning.objective import Objective

WINDOW = 256
"""Tokens per forward pass. States are carried over."""

ROWS = 16
"""Texts per batch."""


class HeldOut:
    """The objective at the evaluated steps, and the parameters of the best step.

    Attributes:
        seen: by step, the objective in nats per token.
        best: copies of the parameters at the best step.
    """

    def __init__(self, teacher: LanguageModel, ids: Tensor, piece: int, objective: Objective) -> None:
        """ids: token ids int64 [n]; piece: tokens per piece, each read from an empty state (0: no pieces)."""
        self._teacher, self._objective = teacher, objective
        rows = len(ids) // piece if piece else min(ROWS, len(ids))
        self._texts = torch.split(ids[: len(ids) // rows * rows].view(rows, -1), ROWS) if rows else ()
        self.seen: dict[int, float] = {}
        self.best: list[Tensor] = []

    def look(self, step: int, student: LanguageModel, parameters: list[Tensor]) -> None:
        """Evaluate the student after a step and keep a copy of its parameters if it is the best so far."""
        if not self._texts:
            return
        loss = self._loss(student)
        if not self.seen or loss < min(self.seen.values()):
            self.best = [p.detach().clone() for p in parameters]
        self.seen[step] = loss

    def restore_best(self, parameters: list[Tensor]) -> None:
        """Set the parameters to their values at the best step. Nothing changes if nothing was held out."""
        with torch.no_grad():
            for parameter, value in zip(parameters, self.best, strict=False):
                parameter.copy_(value)

    @torch.no_grad()
    def _loss(self, student: LanguageModel) -> float:
        total, tokens = 0.0, 0
        for text in self._texts:
            state, wanted_state = student.initial_state(len(text)), self._teacher.initial_state(len(text))
            for window in torch.split(text, WINDOW, 1):
                given, state = student(window, state)
                wanted, wanted_state = self._teacher(window, wanted_state)
                total += float(self._objective(wanted, given)) * window.numel()
                tokens += window.numel()
        return total / tokens
