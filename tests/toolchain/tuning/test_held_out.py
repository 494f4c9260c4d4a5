"""The best state of a tuning, by a divergence worked out by hand, and kept until the end."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from exporters.states import StateSpec
from toolchain.tuning.held_out import HeldOut, divergence


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


def test_divergence_by_hand() -> None:
    """p = (3/4, 1/4) from logits (log 3, 0), q = (1/2, 1/2): 3/4 log(3/2) + 1/4 log(1/2)."""
    wanted, given = torch.tensor([[[math.log(3.0), 0.0]] * 5] * 2), torch.zeros(2, 5, 2)
    assert divergence(wanted, given).item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-6)


def test_the_best_step_comes_back() -> None:
    teacher, student = Biased(1.0), Biased(0.0)
    judge = HeldOut(teacher, torch.zeros(640, dtype=torch.int64), 0)
    for step, bias in enumerate((0.0, 0.9, 3.0)):
        student.bias.data.fill_(bias)
        judge.look(step, student, [student.bias])
    assert judge.seen[1] < judge.seen[0] < judge.seen[2]
    judge.restore_best([student.bias])
    assert student.bias.item() == pytest.approx(0.9)


def test_states_are_carried_from_window_to_window_of_a_text() -> None:
    student = Biased(0.0)
    HeldOut(Biased(1.0), torch.zeros(16 * 300, dtype=torch.int64), 0).look(0, student, [student.bias])
    assert student.read == [(16, 0), (16, 256)]


def test_pieces_are_read_from_empty_states() -> None:
    student = Biased(0.0)
    HeldOut(Biased(1.0), torch.zeros(40 * 20, dtype=torch.int64), 20).look(0, student, [student.bias])
    assert student.read == [(16, 0), (16, 0), (8, 0)]


def test_without_a_held_out_text_the_last_state_stays() -> None:
    student = Biased(0.5)
    judge = HeldOut(Biased(1.0), torch.zeros(0, dtype=torch.int64), 0)
    judge.look(0, student, [student.bias])
    student.bias.data.fill_(2.0)
    judge.restore_best([student.bias])
    assert judge.seen == {}
    assert student.bias.item() == 2.0
