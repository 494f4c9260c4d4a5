"""Losses and best tokens are those of the logits worked out by hand, however the text is cut."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from exporters.artifact.errors import SlmcError
from targets.device import evaluation
from targets.device.evaluation import Evaluation, EvaluationJob, EvaluationRequest, evaluate


def loss(logits: np.ndarray, token: int) -> float:
    return math.log(sum(math.exp(x - logits.max()) for x in logits)) + logits.max() - logits[token]


def test_by_hand(toy):
    found = evaluate(toy.artifact, "model.onnx", toy.io, EvaluationRequest(toy.tokens, 3, native=False))
    assert found.losses == pytest.approx([loss(toy.logits[0], 0), loss(toy.logits[1], 1)], rel=1e-6)
    assert found.best == tuple(toy.logits.argmax(-1)) == (2, 2, 2)
    assert found.perplexity == pytest.approx(math.exp(sum(found.losses) / 2))
    assert found.token_by_token_top1 == 1.0 and found.native_library is None


def test_chunks_change_nothing(toy, monkeypatch):
    request = EvaluationRequest((2, 0, 1, 1, 0, 2, 2), native=False)
    whole = evaluate(toy.artifact, "model.onnx", toy.io, request)
    for size in (1, 2, 3, 7):
        monkeypatch.setattr(evaluation, "chunk_for", lambda vocabulary, size=size: size)
        assert evaluate(toy.artifact, "model.onnx", toy.io, request).losses == pytest.approx(whole.losses, rel=1e-6)
    assert len(whole.losses) == 6 and len(whole.best) == 7 and whole.token_by_token_top1 is None


def test_a_context_begins_from_an_empty_state_and_unpredicted(toy):
    """Two and a half contexts of 3: the text (2, 0, 1) twice, then 2 alone, of which nothing is predicted."""
    io = dataclasses.replace(toy.io, context=3)
    found = evaluate(toy.artifact, "model.onnx", io, EvaluationRequest((*toy.tokens, *toy.tokens, 2), 7, native=False))
    assert found.losses == pytest.approx([loss(toy.logits[0], 0), loss(toy.logits[1], 1)] * 2, rel=1e-6)
    assert found.best == (2,) * 7 and found.token_by_token_top1 == 1.0 and found.context == 3
    assert [len(found.head(n).losses) for n in range(1, 8)] == [0, 1, 2, 2, 3, 4, 4]


def test_agreement_and_head():
    found = Evaluation((1.0, 2.0, 3.0), (5, 6, 7, 8), None, None, "avx2", "1.24")
    assert found.agreement((5, 0, 7)) == pytest.approx(2 / 3)
    assert found.head(2) == dataclasses.replace(found, losses=(1.0,), best=(5, 6))


def test_a_broken_model_has_a_perplexity():
    logits = np.array([[0.0, np.inf], [np.nan, 0.0], [0.0, 2000.0]])
    losses = evaluation._losses(logits, np.array([0, 0, 0]))
    assert losses.tolist() == [evaluation.WORST_LOSS] * 3
    assert math.isfinite(Evaluation(tuple(losses), (), None, None, "", "").perplexity)


def test_sad_paths(toy):
    with pytest.raises(SlmcError, match="1 tokens predict nothing"):
        evaluate(toy.artifact, "model.onnx", toy.io, EvaluationRequest((1,)))
    job = EvaluationJob(str(toy.artifact), "model.onnx", toy.io, EvaluationRequest((1, 7), native=False))
    said = evaluation.answer(json.dumps(dataclasses.asdict(job)))
    assert said["error"]["kind"] == "SlmcError" and "token 7 is not in the vocabulary" in said["error"]["text"]
    assert evaluation.answer("{}")["error"]["kind"] == "SlmcError"
