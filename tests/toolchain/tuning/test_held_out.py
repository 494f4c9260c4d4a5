"""The best state of a tuning, by its objective, kept until the end."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from exporters.states import StateSpec
from toolchain.tuning.held_out import HeldOut
from toolchain.tuning.objective import Objective


class Biased(nn.Module):
    """A model of two tokens whose logits are always (bias, 0); its state counts the tokens read."""

    context = None

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias))
        self.read: list[tuple[int, int]] = []

    def state_specs(self) -> list[StateSpec]:
        return []

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        return [torch.zeros(batch)]

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        self.read.append((len(tokens), int(state[0][0])))
        logits = torch.stack([self.bias.expand(tokens.shape), torch.zeros(tokens.shape)], -1)
        return logits, [state[0] + tokens.shape[1]]


KL = Objective()


def test_the_best_step_comes_back() -> None:
    teacher, student = Biased(1.0), Biased(0.0)
    judge = HeldOut(teacher, torch.zeros(640, dtype=torch.int64), 0, KL)
    for step, bias in enumerate((0.0, 0.9, 3.0)):
        student.bias.data.fill_(bias)
        judge.look(step, student, [student.bias])
    assert judge.seen[1] < judge.seen[0] < judge.seen[2]
    judge.restore_best([student.bias])
    assert student.bias.item() == pytest.approx(0.9)


def test_states_are_carried_from_window_to_window_of_a_text() -> None:
    student = Biased(0.0)
    HeldOut(Biased(1.0), torch.zeros(16 * 300, dtype=torch.int64), 0, KL).look(0, student, [student.bias])
    assert student.read == [(16, 0), (16, 256)]


def test_pieces_are_read_from_empty_states() -> None:
    student = Biased(0.0)
    HeldOut(Biased(1.0), torch.zeros(40 * 20, dtype=torch.int64), 20, KL).look(0, student, [student.bias])
    assert student.read == [(16, 0), (16, 0), (8, 0)]


def test_without_a_held_out_text_the_last_state_stays() -> None:
    student = Biased(0.5)
    judge = HeldOut(Biased(1.0), torch.zeros(0, dtype=torch.int64), 0, KL)
    judge.look(0, student, [student.bias])
    student.bias.data.fill_(2.0)
    judge.restore_best([student.bias])
    assert judge.seen == {}
    assert student.bias.item() == 2.0
