"""Expected losses by hand, and against the divergence that a small change really makes."""

from __future__ import annotations

import pytest
import torch

from toolchain.calibration.statistics import token_frequency
from toolchain.search.sensitivity import embedding_loss, expected_loss


def test_expected_loss_by_hand() -> None:
    """E H E^T of (1, 2) with H = ((2, 1), (1, 3)) is 2 + 4 + 12 = 18; of (0, -1) it is 3."""
    error = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    hessian = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    assert expected_loss(error, hessian, torch.tensor([4.0, 10.0])) == pytest.approx(0.5 * (4 * 18 + 10 * 3))
    assert expected_loss(torch.zeros(2, 2), hessian, torch.ones(2)) == 0


def test_embedding_loss_by_hand() -> None:
    error = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    result = embedding_loss(error, torch.tensor([0.25, 0.75]), torch.tensor([2.0, 10.0]))
    assert result == pytest.approx(0.5 * (0.25 * (2 + 40) + 0.75 * 18))


def test_token_frequency_adds_one_to_each_count() -> None:
    assert token_frequency(torch.tensor([2, 0, 2]), 4).tolist() == pytest.approx([2 / 7, 1 / 7, 3 / 7, 1 / 7])


def test_a_small_change_of_one_output_costs_what_is_expected() -> None:
    """Uniform predictions over 7 tokens: F = p (1 - p) exactly, and KL is 1/2 F mean (e x)^2 to second order."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5000, 4, generator=generator, dtype=torch.float64)
    error = torch.zeros(7, 4, dtype=torch.float64)
    error[3] = 0.01 * torch.randn(4, generator=generator, dtype=torch.float64)
    log_q = torch.log_softmax(x @ error.T, -1)
    divergence = float((-torch.log(torch.tensor(7.0)) - log_q).mean(-1).mean())
    fisher = torch.full((7,), 1 / 7 * 6 / 7, dtype=torch.float64)
    assert expected_loss(error, x.T @ x / 5000, fisher) == pytest.approx(divergence, rel=0.01)
