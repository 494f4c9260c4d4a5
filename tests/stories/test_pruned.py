"""Builds that prune: methods named for layers, and inner channels shuffled for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Slmc = Callable[..., Any]
QUICK = ("--effort", "quick", "--layout", "dense", "--layer", ".*=int8", "--layer", "emb=sign")
METHODS = (
    "--layer",
    "att=2:4/int4-g64@esparse",
    "--layer",
    "ffn.value=2:4/int4-g64@alps",
    "--layer",
    "ffn.key=int4-g64",
)


def manifest(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return document


@pytest.fixture(scope="module")
def pruned(tiny_model: Path, slmc: Slmc, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("pruned") / "out"
    result = slmc("build", tiny_model, "-o", folder, *QUICK, *METHODS, "--method", "gptq", "--shuffle", "2:4")
    assert result.exit_code == 0, result.stderr
    return folder, result


def test_every_layer_has_its_method(pruned: tuple[Path, Any]) -> None:
    found = {p: (e["format"], e["method"]) for p, e in manifest(pruned[0])["recipe"].items()}
    assert found["blocks.0.att.key"] == ("2:4/int4-g64", "esparse")
    assert found["blocks.1.ffn.value"] == ("2:4/int4-g64", "alps")
    assert found["blocks.1.ffn.key"] == ("int4-g64", "gptq")
    assert found["head"] == ("int8", "gptq")
    assert found["emb"] == ("sign", "nearest")


def test_the_shuffled_artifact_says_what_torch_says(pruned: tuple[Path, Any]) -> None:
    assert "shuffle: inner channels of 4 layers in a new order" in pruned[1].stderr
    found = manifest(pruned[0])
    assert found["parity"]["top1_agreement"] > 0.99
    assert found["quality"]["relative_drop"] < 0.3


def test_shuffling_takes_no_bytes_and_helps_what_is_pruned(
    tiny_model: Path, slmc: Slmc, tmp_path: Path, pruned: tuple[Path, Any]
) -> None:
    plain = tmp_path / "plain"
    result = slmc("build", tiny_model, "-o", plain, *QUICK, *METHODS, "--method", "gptq")
    assert result.exit_code == 0, result.stderr
    assert manifest(plain)["bytes"] == manifest(pruned[0])["bytes"]
    assert (plain / "model.onnx.data").read_bytes() != (pruned[0] / "model.onnx.data").read_bytes()


def test_without_loss_the_shuffled_model_is_the_model(tiny_model: Path, slmc: Slmc, tmp_path: Path) -> None:
    """In fp32 nothing is left but the order: the artifact agrees with the model as it was."""
    out = tmp_path / "out"
    result = slmc("build", tiny_model, "-o", out, "--effort", "quick", "--layer", ".*=fp32", "--shuffle", "2:4")
    assert result.exit_code == 0, result.stderr
    found = manifest(out)
    assert abs(found["quality"]["relative_drop"]) < 2e-3
    assert found["quality"]["top1_agreement"] > 0.99
    assert json.loads((out / "plan.json").read_text(encoding="utf-8"))["options"]["shuffle"] == "2:4"


def test_the_plan_says_so_and_export_repeats_it(
    pruned: tuple[Path, Any], tiny_model: Path, slmc: Slmc, tmp_path: Path
) -> None:
    result = slmc("export", tiny_model, "--plan", pruned[0] / "plan.json", "-o", tmp_path / "again")
    assert result.exit_code == 0, result.stderr
    again, first = (f / "model.onnx.data" for f in (tmp_path / "again", pruned[0]))
    assert again.read_bytes() == first.read_bytes()


BAD = [
    (("--layer", "att=2:4/int4-g64@awq"), ("unknown method 'awq'; allowed are nearest",)),
    (("--layer", "att=int4-g64@wanda"), ("layer blocks.0.att.key", "method wanda cannot", "int4-g64; gptq can")),
    (("--shuffle", "3:5"), ("--shuffle '3:5'", "N:M with M = 4, 8, 16")),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=lambda v: str(v)[:40])
def test_bad_input(
    options: tuple[str, ...], words: tuple[str, ...], tiny_model: Path, fails: Callable[..., None], tmp_path: Path
) -> None:
    fails(("build", tiny_model, "-o", tmp_path / "out", *options), 2, *words)
