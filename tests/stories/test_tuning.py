"""A build that tunes: better at the same size, the same again from its plan, and whole after an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Slmc = Callable[..., Any]
SMALL = ("--layer", ".*=int2-g32", "--layer", "emb=sign", "--effort", "quick", "--layout", "dense")
TUNED = (*SMALL, "--tune", "40", "--activations", "fp32")


def manifest(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="module")
def tuned(tiny_model: Path, slmc: Slmc, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "out"
    result = slmc("build", tiny_model, "-o", folder, *TUNED)
    assert result.exit_code == 0, result.stderr
    assert "tuning: 40 steps of 2048 tokens" in result.stderr
    return folder


def test_better_at_the_same_size(tuned: Path, tiny_model: Path, slmc: Slmc, tmp_path: Path) -> None:
    assert slmc("build", tiny_model, "-o", tmp_path / "out", *SMALL, "--activations", "fp32").exit_code == 0
    before, after = manifest(tmp_path / "out"), manifest(tuned)
    assert after["bytes"]["weights"] == before["bytes"]["weights"]
    assert after["quality"]["relative_drop"] < before["quality"]["relative_drop"]
    assert after["quality"]["kl_mean"] < 0.9 * before["quality"]["kl_mean"]


def test_the_manifest_says_so_and_torch_agrees(tuned: Path) -> None:
    found = manifest(tuned)
    assert found["recipe"]["head"]["method"] == "range+tuned"
    assert found["recipe"]["emb"]["method"] == "nearest"
    assert found["parity"]["top1_agreement"] > 0.99


def test_the_same_again_from_its_plan(tuned: Path, tiny_model: Path, slmc: Slmc, tmp_path: Path) -> None:
    result = slmc("export", tiny_model, "--plan", tuned / "plan.json", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out" / "model.onnx.data").read_bytes() == (tuned / "model.onnx.data").read_bytes()


def test_tuned_for_best_tokens_it_agrees_on_more_of_them(
    tuned: Path, tiny_model: Path, slmc: Slmc, tmp_path: Path
) -> None:
    result = slmc("build", tiny_model, "-o", tmp_path / "out", *TUNED, "--tune-for", "best-token")
    assert result.exit_code == 0, result.stderr
    assert "KL to fp32 + 0.2 x surprise at its best tokens" in result.stderr
    assert (
        json.loads((tmp_path / "out" / "plan.json").read_text(encoding="utf-8"))["options"]["tune_for"] == "best-token"
    )
    assert manifest(tmp_path / "out")["quality"]["top1_agreement"] > manifest(tuned)["quality"]["top1_agreement"]
