"""slmc inspect on what no family knows: what was found, and what is supported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def test_an_unknown_architecture_is_shown(tmp_path: Path, slmc: Callable[..., Any]) -> None:
    tensors = {f"backbone.layers.{i}.mixer.A_log": torch.ones(4, 2) for i in range(3)}
    save_file(tensors | {"backbone.embedding.weight": torch.ones(9, 4).half()}, tmp_path / "model.safetensors")
    config = {"model_type": "mamba", "architectures": ["MambaForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    result = slmc("inspect", tmp_path)
    assert result.exit_code == 2
    rows = [line.replace("│", " ").split() for line in result.stdout.splitlines()]
    assert ["backbone.layers.*.mixer.A_log", "3", "4", "x", "2", "float32"] in rows
    assert ["backbone.embedding.weight", "1", "9", "x", "4", "float16"] in rows
    assert "config.json says model_type 'mamba', architectures ['MambaForCausalLM']" in result.stderr
    known = result.stderr.split("known families: ")[1].strip().split(", ")
    assert known[:2] == ["spikegpt", "llama"] and {"opt", "rwkv7", "spiking-bert", "symboliclight"} <= set(known)
    assert slmc("inspect", tmp_path, "--json").stdout == ""
