"""Tolerances by hand, and what cannot be compared."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from exporters.artifact.manifest import FileEntry, Parity, Quality
from toolchain.delivery.promises import BROKEN, KEPT, NOT_COMPARED, Beside, Found, broken, summary, verdict

N = 3200
NOISE = np.random.default_rng(1).normal(0, 0.1, N)
LOSSES = np.full(N, math.log(10.0)) + NOISE - NOISE.mean()
"""Perplexity 10; as much noise from the fp32 model's."""


def manifest(**quality: Any) -> Any:
    figures = {
        "metric": "perplexity", "dataset": "a.txt", "dataset_sha256": "aa", "tokens": N, "reference": 10.0,
        "compressed": 10.0, "relative_drop": 0.0, "relative_drop_upper": 0.0, "bits_per_byte": 1.0,
        "bits_per_byte_reference": 1.0, "kl_mean": 0.0, "top1_agreement": 0.9,
    }  # fmt: skip
    return SimpleNamespace(
        files={"model.onnx": FileEntry(10, ""), "model.onnx.data": FileEntry(90, ""), "run.py": FileEntry(7, "")},
        bytes=SimpleNamespace(file=100), quality=Quality(**(figures | quality)),
        parity=Parity(0.0, 1.0, 1.0, 2048), measured=None, slmc_run=None,
    )  # fmt: skip


def status(found: Found, **quality: Any) -> dict[str, str]:
    return {promise.name: promise.status for promise in verdict(manifest(**quality), found)}


@pytest.mark.parametrize(
    ("factor", "wanted"), [(1.0, KEPT), (1.004, KEPT), (1.006, BROKEN), (0.5, KEPT), (math.inf, BROKEN)]
)
def test_perplexity_of_the_same_tokens_may_rise_by_half_a_percent(factor, wanted):
    losses = np.minimum(LOSSES + math.log(factor), 700.0)
    assert status(Found("aa", losses))["perplexity"] == wanted
    assert status(Found("bb", losses))["perplexity"] == status(Found("aa", losses[:-1]))["perplexity"] == NOT_COMPARED


def test_a_drop_is_allowed_four_standard_errors():
    """Block means of 32 differences of spread 0.1: 0.1 / sqrt(3200) = 0.0018, so 0.5 % and 4 of these: 1.2 %."""
    fp32 = np.full(N, math.log(10.0))
    drops = {rise: status(Found("aa", LOSSES + rise, reference=fp32))["drop"] for rise in (0.0, 0.009, 0.016)}
    assert drops == {0.0: KEPT, 0.009: KEPT, 0.016: BROKEN}
    assert status(Found("bb", LOSSES + 0.05, reference=fp32))["drop"] == KEPT  # another text: 10 %
    assert status(Found("bb", LOSSES + 0.2, reference=fp32))["drop"] == BROKEN
    assert status(Found("aa", LOSSES))["drop"] == NOT_COMPARED


def test_agreement_by_its_own_error():
    """4 sqrt(2 * 0.9 * 0.1 * 2 / 3200) + 0.5 % = 4.7 %."""
    found = {share: status(Found("aa", LOSSES, agreement=share))["agreement"] for share in (1.0, 0.86, 0.84)}
    assert found == {1.0: KEPT, 0.86: KEPT, 0.84: BROKEN}


def test_accuracy_of_the_same_sentences():
    """Half a percent, and two sentences of a hundred."""
    say = {"metric": "accuracy", "tokens": 100, "compressed": 0.8}
    for lost, wanted in ((0, KEPT), (2, KEPT), (3, BROKEN)):
        right = np.repeat([1.0, 0.0], [80 - lost, 20 + lost])
        assert status(Found("aa", np.ones(100), right), **say)["accuracy"] == wanted


def test_plain_runtime_that_computes_something_else():
    found = status(Found("aa", LOSSES, ways={"stock": Beside(LOSSES + 5, LOSSES, 0.003)}, single=1.0))
    assert found["parity with plain runtime"] == found["perplexity on plain runtime"] == BROKEN
    assert found["parity token by token"] == KEPT
    better = status(Found("aa", LOSSES, ways={"stock": Beside(LOSSES - 1, LOSSES, 1.0)}))
    assert better["perplexity on plain runtime"] == BROKEN  # other is wrong, even where it is better


def test_tokens_that_differ_one_by_one_come_in_runs():
    """32 runs of 8 beside 256 without one: 4 sqrt(2 * 3 / 256 * (1 / 32 + 1 / 256)) + 1 % = 12.5 %."""
    found = {s: status(Found(single=s, single_tokens=256))["parity token by token"] for s in (1.0, 0.88, 0.87)}
    assert found == {1.0: KEPT, 0.88: KEPT, 0.87: BROKEN}


def test_every_runtime_is_held_to_the_same():
    """The others read what they should; slmc-run reads something else, or could not be had."""
    ways = {"stock": Beside(LOSSES, LOSSES, 1.0), "slmc-run": Beside(LOSSES + 5, LOSSES, 0.003)}
    found = status(Found("aa", LOSSES, ways=ways))
    assert found["parity with slmc-run"] == found["perplexity on slmc-run"] == BROKEN
    assert found["parity with plain runtime"] == found["perplexity on plain runtime"] == KEPT
    promises = verdict(manifest(), Found("aa", LOSSES, missing={"slmc-run": "no operator Foo"}))
    said = {promise.name: (promise.status, promise.why) for promise in promises}
    assert said["parity with slmc-run"] == said["perplexity on slmc-run"] == (NOT_COMPARED, "no operator Foo")


def test_what_is_said_in_one_line():
    promises = verdict(manifest(), Found("aa", LOSSES + 1))
    assert (
        broken(promises) == ("perplexity",)
        and summary(promises) == "broken: perplexity (of 2 promises that were compared)"
    )
    assert summary(verdict(manifest(), Found())).startswith("valid: 1 of 10 promises")
