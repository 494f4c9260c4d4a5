"""Perplexity, drop, KL divergence and agreement on logits whose probabilities are written out by hand."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.model.catalog import LoadedModel
from toolchain.quality import reference as quality
from toolchain.quality.reference import Reference, Score, bits_per_byte, standard_error, stream_logits

IDS = torch.tensor([0, 1, 1, 0])
REFERENCE = [[0.5, 0.4, 0.1], [0.2, 0.7, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]
CANDIDATE = [[0.2, 0.7, 0.1], [0.3, 0.6, 0.1], [0.4, 0.5, 0.1], [0.1, 0.1, 0.8]]


def logits(probabilities: list[list[float]]) -> Tensor:
    """Logits of these probabilities, every row moved by another constant, which softmax must not mind."""
    rows = torch.tensor(probabilities).log()
    return rows + torch.arange(len(rows))[:, None] * 3.0


def score_of(reference: Any, candidate: Any, ids: Tensor, chunk: int = quality.CHUNK) -> Score:
    return Reference(reference, ids).score(stream_logits(candidate, ids, chunk))


def test_a_score_by_hand(scripted: Callable[[Tensor], Any]) -> None:
    score = score_of(scripted(logits(REFERENCE)), scripted(logits(CANDIDATE)), IDS)
    # Tokens 1, 1, 0 were given 0.4, 0.7, 0.8 by the reference and 0.7, 0.6, 0.4 by the candidate.
    assert score.reference == pytest.approx((0.4 * 0.7 * 0.8) ** (-1 / 3), rel=1e-6)
    assert score.perplexity == pytest.approx((0.7 * 0.6 * 0.4) ** (-1 / 3), rel=1e-6)
    assert score.relative_drop == pytest.approx((0.224 / 0.168) ** (1 / 3) - 1, rel=1e-5)
    by_hand = 0.5 * math.log(0.5 / 0.2) + 0.4 * math.log(0.4 / 0.7)
    by_hand += 0.2 * math.log(0.2 / 0.3) + 0.7 * math.log(0.7 / 0.6)
    by_hand += 0.8 * math.log(0.8 / 0.4) + 0.1 * math.log(0.1 / 0.5)
    assert score.kl_mean == pytest.approx(by_hand / 4, rel=1e-5)
    assert score.top1_agreement == 0.5  # of the four best tokens 0, 1, 0, 2 the candidate says 1, 1, 1, 2
    assert score.tokens == 3
    assert score.standard_error == math.inf


def test_a_better_model_has_a_negative_drop(scripted: Callable[[Tensor], Any]) -> None:
    score = score_of(scripted(logits(CANDIDATE)), scripted(logits(REFERENCE)), IDS)
    assert score.relative_drop == pytest.approx((0.168 / 0.224) ** (1 / 3) - 1, rel=1e-5)
    assert score.relative_drop < 0 < score.kl_mean


def test_the_model_itself_loses_nothing(scripted: Callable[[Tensor], Any]) -> None:
    table = torch.randn(100, 7, generator=torch.Generator().manual_seed(1))
    score = score_of(scripted(table), scripted(table), torch.arange(100) % 7)
    assert (score.relative_drop, score.standard_error, score.kl_mean, score.top1_agreement) == (0, 0, 0, 1)
    assert score.perplexity == score.reference
    assert score.tokens == 99


def test_uniform_predictions_have_the_vocabulary_as_perplexity(scripted: Callable[[Tensor], Any]) -> None:
    score = score_of(scripted(torch.zeros(50, 11)), scripted(torch.ones(50, 11)), torch.arange(50) % 11)
    assert score.perplexity == pytest.approx(11, rel=1e-6)


def test_kept_and_recomputed_references_agree(
    scripted: Callable[[Tensor], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = torch.randn(2, 1300, 7, generator=torch.Generator().manual_seed(1))
    ids, results, calls = torch.arange(1300) % 7, [], []
    whole = 1300 * 7 * 4
    for keep in (2**30, whole, whole - 1, 512 * 7 * 4, 0):
        monkeypatch.setattr(quality, "KEEP_BYTES", keep)
        model = scripted(tables[0])
        reference = Reference(model, ids)
        results.append([reference.score(stream_logits(scripted(tables[1]), ids)) for _ in range(2)])
        calls.append(model.calls)
    assert all(pair == results[0] for pair in results)
    assert calls == [3, 3, 9, 9, 9]  # 1300 tokens are three chunks; each of two scores reads them again


def test_what_is_not_in_memory_is_not_compared(
    scripted: Callable[[Tensor], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 1300 tokens 512 are kept: the fp32 model reads once, KL and agreement are theirs, perplexity is of all."""
    tables, ids = torch.randn(2, 1300, 7, generator=torch.Generator().manual_seed(1)), torch.arange(1300) % 7
    monkeypatch.setattr(quality, "KEEP_BYTES", 512 * 7 * 4)
    model = scripted(tables[0])
    reference = Reference(model, ids)
    score = reference.score(stream_logits(scripted(tables[1]), ids), known_alone=True)
    assert model.calls == 3
    whole = reference.score(stream_logits(scripted(tables[1]), ids))
    first = score_of(scripted(tables[0]), scripted(tables[1]), ids[:512])
    assert (score.perplexity, score.relative_drop, score.tokens) == (whole.perplexity, whole.relative_drop, 1299)
    assert (score.kl_mean, score.top1_agreement) == pytest.approx((first.kl_mean, first.top1_agreement))
    assert score.kl_mean != pytest.approx(whole.kl_mean, rel=1e-3)


@pytest.mark.parametrize("chunk", [1, 3, 64, 127, 129, 4096])
def test_chunks_change_nothing(scripted: Callable[[Tensor], Any], monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Among them chunks whose last holds one token, which predicts nothing."""
    tables = torch.randn(2, 130, 7, generator=torch.Generator().manual_seed(1))
    ids = torch.arange(130) % 7
    expected = score_of(scripted(tables[0]), scripted(tables[1]), ids)
    monkeypatch.setattr(quality, "stream_logits", functools.partial(stream_logits, chunk=chunk))
    score = score_of(scripted(tables[0]), scripted(tables[1]), ids, chunk)
    assert score.tokens == expected.tokens == 129
    for name in ("perplexity", "reference", "relative_drop", "standard_error", "kl_mean", "top1_agreement"):
        assert getattr(score, name) == pytest.approx(getattr(expected, name), rel=1e-5)


def test_the_state_is_carried_from_chunk_to_chunk(spiking: LoadedModel, token_ids: Any) -> None:
    ids = token_ids(90, 13)
    whole, _ = spiking.forward(ids[None], spiking.forward.initial_state())
    for chunk in (1, 7, 90):
        pieces = list(stream_logits(spiking.forward, ids, chunk))
        assert [start for start, _ in pieces] == list(range(0, 90, chunk))
        assert torch.allclose(torch.cat([piece for _, piece in pieces]), whole[0], atol=1e-4)


def test_an_abandoned_stream_leaves_torch_as_it_was(scripted: Callable[[Tensor], Any]) -> None:
    reference = Reference(scripted(logits(REFERENCE)), IDS)
    kept_alive = stream_logits(scripted(logits(REFERENCE)), IDS, 1)
    next(kept_alive)
    assert not torch.is_inference_mode_enabled()
    with pytest.raises(ValueError, match="argument"):
        reference.score(stream_logits(scripted(logits(CANDIDATE)), IDS[:0]))
    broken = stream_logits(scripted(logits(CANDIDATE)), IDS, 1)
    with pytest.raises((ValueError, RuntimeError)):
        reference.score(broken)
    del broken, kept_alive
    assert not torch.is_inference_mode_enabled()


def test_a_model_that_is_sure_of_wrong_tokens_is_no_overflow(scripted: Callable[[Tensor], Any]) -> None:
    sure = torch.zeros(100, 4)
    sure[:, 3] = 5000.0
    ids = torch.zeros(100, dtype=torch.int64)
    score = score_of(scripted(torch.zeros(100, 4)), scripted(sure), ids)
    assert math.isfinite(score.perplexity)
    assert math.isfinite(math.log1p(score.relative_drop))
    assert score.relative_drop > 1e100
    better = score_of(scripted(sure), scripted(torch.zeros(100, 4)), ids)
    assert -1 < better.relative_drop < -0.999
    assert math.isfinite(math.log1p(better.relative_drop))


def test_a_compressed_model_that_says_nan_is_worst_not_unknown(scripted: Callable[[Tensor], Any]) -> None:
    spoilt = torch.zeros(100, 4)
    spoilt[40:] = float("nan")
    score = score_of(scripted(torch.zeros(100, 4)), scripted(spoilt), torch.zeros(100, dtype=torch.int64))
    assert all(math.isfinite(x) for x in (score.perplexity, score.relative_drop, score.kl_mean, score.standard_error))
    assert score.relative_drop > 1e100


def test_a_reference_that_says_nan_is_refused(scripted: Callable[[Tensor], Any]) -> None:
    spoilt = torch.zeros(100, 4)
    spoilt[40, 2] = float("nan")
    with pytest.raises(SlmcError, match="no finite prediction after token 40"):
        Reference(scripted(spoilt), torch.zeros(100, dtype=torch.int64))


@pytest.mark.parametrize(
    ("means", "tail", "expected"),
    [
        ([1.0, 3.0], 5, 1.0),  # spread of the means sqrt(2), over sqrt(2)
        ([1.0, 2.0, 6.0], 0, math.sqrt(7 / 3)),  # deviations -2, -1, 3: variance 14 / 2
        ([2.0, 2.0], 31, 0.0),
        ([4.0], 31, math.inf),
        ([], 10, math.inf),
    ],
)
def test_standard_error_by_hand(means: list[float], tail: int, expected: float) -> None:
    """Blocks of 32 around these means; what is left at the end, however wild, does not count."""
    wave = torch.tensor([-1.0, 1.0] * 16)
    blocks = [mean + 10 * wave for mean in means]
    series = torch.cat([*blocks, torch.full((tail,), 1e6)])
    assert standard_error(series) == pytest.approx(expected)


def test_the_standard_error_of_a_score_is_that_of_the_loss_differences(scripted: Callable[[Tensor], Any]) -> None:
    """Token 0 of two is lost with probability 1/2 by the reference, and by the candidate 1/4 or 1/8, block by block."""
    candidate = torch.zeros(65, 2)
    candidate[:32, 1], candidate[32:64, 1] = math.log(3), math.log(7)
    score = score_of(scripted(torch.zeros(65, 2)), scripted(candidate), torch.zeros(65, dtype=torch.int64))
    # Differences ln 2 and ln 4: their spread is ln 2 / sqrt(2), their mean 1.5 ln 2.
    assert score.standard_error == pytest.approx(math.log(2) / 2, rel=1e-5)
    assert score.relative_drop == pytest.approx(2**1.5 - 1, rel=1e-5)


def test_bits_per_byte_by_hand() -> None:
    assert bits_per_byte(8.0, 100, 300) == pytest.approx(1.0)
    assert bits_per_byte(256.0, 10, 10) == pytest.approx(8.0)
