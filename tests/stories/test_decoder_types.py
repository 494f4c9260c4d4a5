"""A tiny model of every row of the decoder's table: built, validated on both runtimes, run, kept by the gate."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoder_cases import CASES, config_of, saved
from driven import program

from exporters.artifact.manifest import read_manifest
from toolchain.delivery.validate import artifact_session
from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.model.catalog import load_model

pytest.importorskip("transformers")

CONTEXT = 40
"""Longer than the windows of the cases, so that they count."""

QUICK = ("--effort", "quick", "--formats", "int8", "--context", CONTEXT)
CHARACTERS = 1000


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", CASES)
def test_from_a_directory_to_an_artifact_that_is_kept(
    kind: str, tiny_model: Path, slmc: Callable[..., Any], document: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source, out, baseline = tmp_path / "source", tmp_path / "out", tmp_path / "baseline.json"
    source.mkdir()
    saved(config_of(kind, CASES[kind][0] | {"vocab_size": 300}), source)
    (source / "tokenizer.json").write_bytes((tiny_model / "tokenizer.json").read_bytes())
    texts = []
    for name in ("calibration", "eval"):
        text = (SHIPPED_TEXTS / f"{name.replace('eval', 'evaluation')}.txt").read_text(encoding="utf-8")[:CHARACTERS]
        (tmp_path / name).write_text(text, encoding="utf-8")
        texts += [f"--{name}", tmp_path / name]
    built = slmc("build", source, "-o", out, *QUICK, *texts)
    assert built.exit_code == 0, built.stderr

    data = ("--data", tmp_path / "eval")
    found = document("validate", out, "--reference", source, *data)
    assert found["token_by_token_top1"] == 1.0 and found["stock_runtime_top1"] > 0.995
    assert found["stock_runtime_perplexity_ratio"] == pytest.approx(1, abs=1e-3)
    manifest = read_manifest(out)
    assert manifest.source.family == load_model(source).tree.family

    written = document("generate", out, "-p", "The ship", "-n", "24", "--temp", "0")
    assert written["text"].startswith("The ship") and len(written["text"]) > len("The ship")
    ids = np.arange(CONTEXT, dtype=np.int64) * 7 % 300
    expected = artifact_session(out, manifest.io).run(ids[None])[0]
    ids.astype("<i4").tofile(tmp_path / "ids")
    command = [program("slmc-run"), out, "--eval", tmp_path / "ids", "--logits", tmp_path / "logits"]
    subprocess.run(command, capture_output=True, check=True)
    logits = np.fromfile(tmp_path / "logits", np.float32).reshape(expected.shape)
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()

    monkeypatch.setattr("toolchain.gate.observe.ROUNDS", 1)
    monkeypatch.setattr("toolchain.gate.observe.PROCESSES", 1)
    kept = slmc("gate", out, "--baseline", baseline, "--update-baseline", "--reference", source, *data)
    assert kept.exit_code == 0, kept.stderr
    monkeypatch.setattr("toolchain.gate.observe.PROCESSES", 2)  # three in all, the least that are compared
    lenient = ("--tolerance", "latency=1000%", "--tolerance", "memory=100%")
    kept = slmc("gate", out, "--baseline", baseline, *data, *lenient)
    assert kept.exit_code == 0, kept.stdout + kept.stderr
