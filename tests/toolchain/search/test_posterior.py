"""What candidates are believed to lose: by hand for one, and on synthetic ones whose scale and bias are known."""

from __future__ import annotations

import math
import random

import pytest

from toolchain.quality.reference import Score
from toolchain.search.posterior import BIAS_STD, fit, with_estimates
from toolchain.search.values import Candidate


def candidate(predicted: float, measured: float, error: float) -> Candidate:
    """measured: nats per token."""
    score = Score(20 * math.exp(measured), 20.0, math.expm1(measured), error, 0.0, 1.0, 1000)
    return Candidate({}, 1000, predicted, score, "global", "test")


def synthetic(scale: float, bias: float, error: float, seed: int, count: int = 60) -> list[Candidate]:
    """Candidates over three decades of predicted loss, each off by 30 % of its prediction and by its noise."""
    dice = random.Random(seed)
    made = []
    for _ in range(count):
        predicted = 10 ** dice.uniform(-4, -0.5)
        truth = scale * predicted * (1 + 0.3 * dice.gauss(0, 1))
        made.append(candidate(predicted, bias + truth + dice.gauss(0, error), error))
    return made


@pytest.mark.parametrize("scale", [0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("bias", [-0.004, 0.0, 0.004])
def test_scale_and_bias_are_recovered(scale: float, bias: float) -> None:
    errors = []
    for seed in range(10):
        line = fit(synthetic(scale, bias, 0.002, seed))
        assert line.scale == pytest.approx(scale, rel=0.4)
        assert line.bias == pytest.approx(bias, abs=0.002)
        errors.append(line.scale / scale - 1)
    assert abs(sum(errors) / 10) < 0.12


def test_without_noise_or_model_error_the_line_is_exact_but_for_the_prior_on_bias() -> None:
    made = [candidate(p, 0.002 + 0.7 * p, 1e-6) for p in (1e-5, 0.001, 0.01, 0.03, 0.1, 0.2)]
    line = fit(made)
    assert line.scale == pytest.approx(0.7, rel=0.05)
    assert line.bias == pytest.approx(0.002, rel=0.05)


def test_few_noisy_measurements_say_little_about_bias() -> None:
    """Two points of noise 0.03 around 0.03 tell nearly nothing about a bias that is expected within 0.003."""
    line = fit([candidate(1e-6, 0.03, 0.03), candidate(0.5, 0.28, 0.03)])
    assert 0 < line.bias < BIAS_STD / 3


def test_the_scale_is_never_negative() -> None:
    line = fit([candidate(p, 0.01 - p, 0.001) for p in (0.001, 0.01, 0.05, 0.1)])
    assert line.scale == 0.0


@pytest.mark.parametrize(
    "made",
    [
        [],
        [candidate(0.1, 0.2, 0.01)],
        [candidate(0.0, 0.2, 0.01)] * 3,
        [candidate(0.1, 0.2, math.inf)] * 3,
        [candidate(0.1, 0.2, 0.0)] * 3,
    ],
    ids=["none", "one", "no prediction", "no error known", "exact"],
)
def test_too_little_to_fit_gives_the_expected_half(made: list[Candidate]) -> None:
    """A second-order prediction counts the loss twice where gradients are noisy: 0.5 is what is assumed."""
    line = fit(made)
    assert (line.scale, line.bias) == (0.5, 0.0)


def test_one_candidate_by_hand() -> None:
    """Prior 0.5 * 0.04 = 0.02 with deviation 0.01; measured 0.05 with deviation 0.01: in the middle, 0.01 / sqrt 2."""
    (result,) = with_estimates([candidate(0.04, 0.05, 0.01)])
    assert math.log1p(result.drop) == pytest.approx(0.035, rel=1e-3)
    assert math.log1p(result.upper) == pytest.approx(0.035 + 1.645 * 0.01 / math.sqrt(2), rel=1e-3)


def test_an_exact_measurement_is_believed_and_an_unknown_one_is_not() -> None:
    exact, unknown = with_estimates([candidate(0.04, 0.05, 0.0), candidate(0.04, 0.05, math.inf)])
    assert exact.drop == exact.upper == pytest.approx(math.expm1(0.05))
    assert math.log1p(unknown.drop) == pytest.approx(0.02)
    assert math.log1p(unknown.upper) == pytest.approx(0.02 + 1.645 * 0.01, rel=1e-3)


def test_candidates_keep_their_order_and_everything_else() -> None:
    made = synthetic(0.5, 0.0, 0.002, 1, 10)
    for before, after in zip(made, with_estimates(made), strict=True):
        assert (after.predicted, after.score, after.bytes, after.tier) == (
            before.predicted, before.score, before.bytes, before.tier
        )  # fmt: skip
        assert after.drop < after.upper


def test_bias_counts_only_where_it_is_against_us() -> None:
    """The same losses, read on a text that flatters (measured lower) or slights (higher) every candidate."""
    flattered, slighted = (
        with_estimates([candidate(p, bias + 0.5 * p, 1e-4) for p in (1e-4, 0.001, 0.01, 0.03, 0.1)])
        for bias in (-0.004, 0.004)
    )
    truth = 0.5 * 0.001
    assert math.log1p(flattered[1].drop) == pytest.approx(truth, abs=5e-4)
    assert math.log1p(slighted[1].drop) == pytest.approx(truth + 0.004, abs=5e-4)


def test_the_bound_holds_for_about_95_percent() -> None:
    below, count = 0, 0
    for seed in range(30):
        dice = random.Random(seed)
        made, truths = [], []
        for _ in range(40):
            predicted = 10 ** dice.uniform(-3.5, -1)
            truths.append(max(0.5 * predicted * (1 + 0.5 * dice.gauss(0, 1)), 0.0))
            made.append(candidate(predicted, truths[-1] + dice.gauss(0, 0.003), 0.003))
        below += sum(truth <= math.log1p(c.upper) for truth, c in zip(truths, with_estimates(made), strict=True))
        count += 40
    assert 0.92 < below / count < 0.995


def test_a_smooth_prediction_beats_the_noise() -> None:
    """With noise as large as the losses, estimated drops are nearer to the truth than measured ones."""
    judged_error, measured_error = 0.0, 0.0
    for seed in range(10):
        made = synthetic(0.5, 0.0, 0.01, seed)
        for c in with_estimates(made):
            truth = 0.5 * c.predicted
            judged_error += abs(math.log1p(c.drop) - truth)
            measured_error += abs(math.log1p(c.score.relative_drop) - truth)
    assert judged_error < 0.6 * measured_error
