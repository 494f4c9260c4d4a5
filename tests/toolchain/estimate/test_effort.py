"""What a forecast counts: evaluations of the search, and seconds of reading where they were timed."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from exporters.formats.catalog import formats_matching
from tests.toolchain.search.conftest import EFFORT, FORMATS, FakeEvaluator, tree
from toolchain.compress.recipe import LayerConfig
from toolchain.estimate import effort
from toolchain.estimate.effort import forecast, reading_seconds
from toolchain.model.family import LanguageModel
from toolchain.search import dense_screening
from toolchain.search.problem import Constraints, Evaluator, Problem, layer_options
from toolchain.search.search import search


def problem(max_bytes: int | None = None, max_drop: float | None = None) -> Problem:
    options = layer_options(tree(), formats_matching(FORMATS), {}, EFFORT.method)
    return Problem(tree(), options, Constraints(max_bytes, max_drop), EFFORT, 0)


class Estimating(FakeEvaluator):
    def estimate(self, path: str, config: LayerConfig) -> float:
        return self.loss(path, config)


@pytest.mark.parametrize("limits", [{}, {"max_bytes": 22_000}, {"max_bytes": 25_000, "max_drop": 0.2}])
@pytest.mark.parametrize("large", [False, True])
def test_evaluations_are_those_of_a_search(
    monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any], large: bool
) -> None:
    """Never fewer than are made, and at most what every tier and every step of closing in would take."""
    monkeypatch.setattr(dense_screening, "LARGE", 1 if large else 10**9)

    made = problem(**limits)
    expected = forecast(made, 100, 100, 0, on_disk=False).evaluations
    done = len(search(made, cast(Evaluator, Estimating())).trace)
    assert done <= expected <= done + 2 * made.effort.bisections + 8


def test_seconds_of_reading_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four readings of the calibration text and two of refinement, 1.3 of the evaluation text for each evaluation and
    the fp32 model: 6 x 100 + 1.3 x 200 x (n + 1) tokens."""
    monkeypatch.setattr(effort, "_flops_per_second", lambda: 1e11)
    slow, fast = (forecast(problem(), 100, 200, 0, on_disk=False, token_s=s) for s in (0.02, 0.01))
    tokens = 6 * 100 + 1.3 * 200 * (slow.evaluations + 1)
    assert slow.seconds - fast.seconds == pytest.approx(0.01 * tokens)


def test_a_reading_is_of_a_chunk_or_a_context() -> None:
    read: list[tuple[int, ...]] = []

    class Model:
        context: int | None = 24

        def initial_state(self, batch: int) -> list[torch.Tensor]:
            return []

        def __call__(self, tokens: torch.Tensor, state: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
            read.append(tuple(tokens.shape))
            assert int(tokens.max()) < 7
            return torch.zeros(*tokens.shape, 7), state

    model: Any = Model()
    typed: LanguageModel = model
    assert reading_seconds(typed, 7) > 0
    assert read == [(1, 24), (1, 24)]
    model.context = None
    reading_seconds(typed, 7)
    assert read[-1] == (1, 512)
