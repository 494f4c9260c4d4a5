"""A build that rotates and refines: the plan says so, the artifact is valid, and an export does the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from decoders import llama_config
from safetensors.torch import save_file

from exporters.artifact.manifest import read_manifest
from toolchain.model.catalog import load_model
from toolchain.model.decoder import Decoder
from toolchain.search.plan import read_plan

QUICK = ("--effort", "quick", "--method", "gptq", "--formats", "int4-g32", "--formats", "int8", "--context", 32, "-q")
CONFIG = {
    "model_type": "llama", "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48, "vocab_size": 300, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "max_position_embeddings": 64, "tie_word_embeddings": True, "hidden_act": "silu",
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tied Llama of whose channels one is twenty times as large as the others."""
    torch.manual_seed(3)
    module = Decoder(llama_config(1, 32, 48, 300, heads=4, groups=2, head_size=8, context=64, tied=True))
    tensors = {n: t + 0.3 * torch.randn_like(t) for n, t in module.state_dict().items() if "lm_head" not in n}
    tensors["embed_tokens.weight"][:, :1] *= 20
    folder = tmp_path_factory.mktemp("outliers")
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_bytes((tiny_model / "tokenizer.json").read_bytes())
    return folder


def test_a_build_and_an_export_rotate_alike(
    source: Path, slmc: Callable[..., Any], document: Callable[..., Any], tmp_path: Path
) -> None:
    built, exported = tmp_path / "built", tmp_path / "exported"
    result = slmc("build", source, "-o", built, *QUICK, "--refine", "always")
    assert result.exit_code == 0, result.stderr
    plan, manifest = read_plan(built / "plan.json"), read_manifest(built)
    assert plan.transformations[0].place == "residual stream" and plan.transformations[0].taken
    assert list(plan.recipe)[-2:] == ["norm.product", "lm_head"] and "norm.product" in manifest.recipe
    assert manifest.bytes.uncompressed == load_model(source).tree.params * 4 + manifest.bytes.states
    assert plan.texts is not None and plan.texts.text() in (built / "report.html").read_text()
    assert plan.options["refine"] == "always" and "norm.product" in manifest.recipe
    assert {entry.method for path, entry in manifest.recipe.items() if "layers" in path} <= {"gptq", "gptq+refined"}
    assert "Rotations that leave the function" in (built / "report.html").read_text()
    found = document("validate", built, "--reference", source)
    assert found["token_by_token_top1"] == 1.0 and found["stock_runtime_top1"] > 0.995
    assert slmc("export", source, "--plan", built / "plan.json", "-o", exported, "-q").exit_code == 0
    for file in ("model.onnx", "model.onnx.data", "plan.json"):
        assert (built / file).read_bytes() == (exported / file).read_bytes(), file


def test_without_rotations(source: Path, slmc: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    assert slmc("search", source, "-o", path, *QUICK, "--transform", "none").exit_code == 0
    plan = read_plan(path)
    assert plan.transformations == () and "norm.product" not in plan.recipe
    assert plan.options["transform"] == "none"
