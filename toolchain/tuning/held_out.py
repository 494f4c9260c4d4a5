"""Which state of a tuning is the best: by its objective on a part of the text that is not learned from."""

from __future__ import annotations

import torch
from torch import Tensor

from toolchain.model.family import LanguageModel
from toolchain.tuning.objective import Objective

WINDOW = 256
"""Tokens per forward pass where states are carried."""

ROWS = 16


class HeldOut:
    """What was found at some steps, and the parameters of the best of them.

    seen: step -> the objective, nats per token.
    """

    def __init__(self, teacher: LanguageModel, ids: Tensor, piece: int, objective: Objective) -> None:
        """ids: token ids int64 [n], whole pieces of `piece` tokens that are read separately (0: there are none)."""
        self._teacher, self._objective = teacher, objective
        rows = len(ids) // piece if piece else min(ROWS, len(ids))
        self._texts = torch.split(ids[: len(ids) // rows * rows].view(rows, -1), ROWS) if rows else ()
        self.seen: dict[int, float] = {}
        self.best: list[Tensor] = []

    def look(self, step: int, student: LanguageModel, parameters: list[Tensor]) -> None:
        """Judge the student as it stands after a step; its parameters are kept if it is the best so far."""
        if not self._texts:
            return
        loss = self._loss(student)
        if not self.seen or loss < min(self.seen.values()):
            self.best = [p.detach().clone() for p in parameters]
        self.seen[step] = loss

    def restore_best(self, parameters: list[Tensor]) -> None:
        """Give the parameters the values of the best step; nothing where nothing was held out."""
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
