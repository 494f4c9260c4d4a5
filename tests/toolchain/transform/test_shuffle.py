"""Free shuffling: the model and its statistics in another order, more of the score kept, and equality checked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from exporters.artifact.errors import SlmcError
from toolchain.calibration.entropy import channel_entropies
from toolchain.calibration.fisher import output_fisher
from toolchain.calibration.hessian import input_hessians
from toolchain.calibration.statistics import CalibrationStatistics
from toolchain.compress.permutation import kept_score
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.permutation_groups import permutation_groups
from toolchain.transform import check
from toolchain.transform.check import logit_difference
from toolchain.transform.shuffle import Shuffled, parse_pattern, shuffled

IDS = torch.randint(0, 300, (600,), generator=torch.Generator().manual_seed(2))


def statistics_of(model: LoadedModel) -> CalibrationStatistics:
    fisher = output_fisher(model, IDS[:256], 0)
    return CalibrationStatistics(input_hessians(model, IDS), fisher, torch.ones(300), channel_entropies(model, IDS))


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> LoadedModel:
    return load_model(tiny_model)


@pytest.fixture(scope="module")
def found(model: LoadedModel) -> Shuffled:
    return shuffled(model, statistics_of(model), IDS, 2, 4)


def test_the_model_stays_and_more_of_the_score_is_kept(model: LoadedModel, found: Shuffled) -> None:
    assert logit_difference(model, found.model, IDS[:200]) == pytest.approx(0, abs=1e-9)
    consumers = [c.consumer for c in permutation_groups(model)]
    assert list(found.gains) == consumers
    assert len(consumers) == 4
    before = statistics_of(model)
    for path in consumers:
        scores = [
            m.weight(path).square() * e.hessians[path].diagonal()
            for m, e in ((model, before), (found.model, found.statistics))
        ]
        gain = kept_score(scores[1], 2, 4) / kept_score(scores[0], 2, 4)
        assert gain == pytest.approx(found.gains[path], rel=1e-5)
        assert gain > 1.005
    assert "4 layers in a new order" in found.text()


def test_the_statistics_are_those_of_the_reordered_model(found: Shuffled) -> None:
    """Calibrated anew on the reordered model it comes out the same."""
    hessians, entropies = input_hessians(found.model, IDS), channel_entropies(found.model, IDS)
    for path, hessian in found.statistics.hessians.items():
        assert torch.allclose(hessians[path], hessian, rtol=1e-3, atol=1e-3 * float(hessian.diagonal().max()))
        assert torch.allclose(entropies[path], found.statistics.entropies[path], atol=0.02)
    for group in permutation_groups(found.model):
        for path in group.producers:
            own = output_fisher(found.model, IDS[:256], 0)[path]
            assert torch.corrcoef(torch.stack([own, found.statistics.fisher[path]]))[0, 1] > 0.99


def test_a_model_with_other_logits_is_refused(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "logit_difference", lambda *_: 1e-3)
    with pytest.raises(SlmcError, match=r"differ by 0\.001.*build without --shuffle"):
        shuffled(model, statistics_of(model), IDS, 2, 4)


@pytest.mark.parametrize("text", ["", "2", "4:4", "0:4", "2:5", "2:4/int4", "-1:4"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(SlmcError, match=f"--shuffle '{text}': expected the pattern to make room for, N:M with M = 4"):
        parse_pattern(text)
