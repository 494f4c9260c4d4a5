"""SpikingBrain's W8ASpike form, whose counts of spikes are rounded: no two orders of a sum need give the same counts.

What every family's story asks for (tests/stories/test_families.py) is asked of the plain form.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from family_cases import CONTEXT, spikingbrain
from safetensors.torch import save_file

from exporters.artifact.manifest import read_manifest
from toolchain.files.shipped import SHIPPED_TEXTS

EXACT = ("--effort", "quick", "--formats", "fp32", "--transform", "none", "--max-time", "5m")


def test_an_exact_artifact_keeps_the_perplexity(
    tiny_model: Path, slmc: Callable[..., Any], document: Callable[..., Any], tmp_path: Path
) -> None:
    """Counts that flip move single tokens, not the text, of which 1 % is allowed."""
    torch.manual_seed(7)
    module, config = spikingbrain(spiking=True)
    for p in module.parameters():
        p.data.add_(0.3 * torch.randn_like(p))
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    save_file(module.state_dict(), source / "model.safetensors")
    (source / "config.json").write_text(json.dumps(config))
    (source / "tokenizer.json").write_bytes((tiny_model / "tokenizer.json").read_bytes())

    result = slmc("build", source, "-o", out, "--context", CONTEXT, *EXACT)
    assert result.exit_code == 0, result.stderr
    assert {entry.format for entry in read_manifest(out).recipe.values()} == {"fp32"}
    text = SHIPPED_TEXTS / "evaluation.txt"
    found = document("eval", out, "--reference", source, "--data", text, "--tokens", "1024")
    assert abs(found["relative_drop"]) < 0.01
    written = slmc("generate", out, "-p", "The ship", "-n", 8, "--temperature", 0)
    assert written.exit_code == 0, written.stderr
