"""Every other command on a real model and artifact: what it prints, and that --json is one document alone."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporters.artifact.manifest import read_manifest
from targets.measure.child import measure

Document = Callable[..., Any]
Slmc = Callable[..., Any]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text that the shipped ones do not hold."""
    path = tmp_path_factory.mktemp("text") / "ships.txt"
    things = ("ship", "old boat", "letter", "captain", "rain", "cook", "fog", "bell", "dog", "harbour master") * 3
    lines = (f"The {thing} came in with tide {n} and nobody on the quay looked up.\n" for n, thing in enumerate(things))
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_inspect_a_model(tiny_model: Path, document: Document, slmc: Slmc) -> None:
    found = document("inspect", tiny_model)
    layers = {x["path"]: (x["rows"], x["cols"], x["kind"]) for block in found["blocks"] for x in block["layers"]}
    assert [block["path"] for block in found["blocks"]] == ["emb", "blocks.0", "blocks.1", "head"]
    assert layers["emb"] == (300, 32, "embedding") and layers["head"] == (300, 32, "linear")
    assert layers["blocks.1.ffn.value"] == (32, 128, "linear")
    # Two blocks of 4 + 1 projections 32 x 32 and 2 of 32 x 128, two tables; 7 carried vectors per block.
    matrices = 2 * (5 * 32 * 32 + 2 * 32 * 128) + 2 * 300 * 32
    assert found["params"] == matrices + found["vector_params"]
    assert found["state_values"] == 2 * 7 * 32
    assert found["bytes_fp32"] == 4 * (found["params"] + found["state_values"])
    shown = slmc("inspect", tiny_model)
    assert "blocks.1.ffn.value" in shown.stdout and "32 x 128" in shown.stdout and shown.stderr == ""


def test_inspect_an_artifact(artifact: Path, document: Document, slmc: Slmc) -> None:
    assert document("inspect", artifact) == json.loads((artifact / "manifest.json").read_text())
    shown = slmc("inspect", artifact).stdout
    assert all(path in shown for path in read_manifest(artifact).recipe)


def test_sensitivity(tiny_model: Path, document: Document, tmp_path: Path) -> None:
    page = tmp_path / "heat.html"
    rows = document("sensitivity", tiny_model, "--effort", "quick", "--layer", "head=int8", "--html", page, "-q")
    losses = {(r["layer"], r["format"]): r["loss"] for r in rows}
    assert losses["emb", "sign"] == 0.0
    assert losses["blocks.0.att.key", "int2-g64"] > losses["blocks.0.att.key", "int8"] > 0
    assert [f for path, f in losses if path == "head"] == ["int8"], "the pin was not kept to"
    assert "blocks.1.ffn.value" in page.read_text()


def test_report_in_every_format(artifact: Path, slmc: Slmc, document: Document, tmp_path: Path) -> None:
    markdown, page, raw = (slmc("report", artifact, "--format", kind) for kind in ("md", "html", "json"))
    assert "| " in markdown.stdout and "perplexity" in markdown.stdout
    assert page.stdout.rstrip("\n") == (artifact / "report.html").read_text().rstrip("\n")
    stored = json.loads((artifact / "report.json").read_text())
    assert json.loads(raw.stdout) == stored
    assert document("report", artifact) == stored
    assert slmc("report", artifact, "-o", tmp_path / "r.md").stdout == ""
    assert (tmp_path / "r.md").read_text().strip() == markdown.stdout.strip()


def test_validate(artifact: Path, tiny_model: Path, document: Document) -> None:
    found = document("validate", artifact, "--reference", tiny_model)
    assert found["files"] == "ok"
    assert found["token_by_token_top1"] > 0.98 and found["stock_runtime_top1"] > 0.98
    assert found["stock_runtime_perplexity_ratio"] == pytest.approx(1, abs=0.01)
    assert found["perplexity"] > found["reference_perplexity"] * 0.9
    assert found["relative_drop"] == pytest.approx(found["perplexity"] / found["reference_perplexity"] - 1, rel=1e-3)
    assert found["rss_peak_bytes"] > found["rss_baseline_bytes"] > 0 and found["decode_tps"] > 0


def test_eval_of_models_and_artifacts(artifact: Path, tiny_model: Path, text: Path, document: Document) -> None:
    model = document("eval", tiny_model, "--data", text)
    assert model["tokens"] > 128
    bits = math.log2(model["perplexity"]) * model["tokens"] / text.stat().st_size
    assert model["bits_per_byte"] == pytest.approx(bits)
    both = document("eval", artifact, "--data", text, "--reference", tiny_model)
    assert both["reference_perplexity"] == pytest.approx(model["perplexity"])
    assert both["kl_mean"] > 0 and 0 < both["top1_agreement"] < 1
    stock = document("eval", artifact, "--data", text, "--no-native")
    assert stock["perplexity"] == pytest.approx(both["perplexity"], rel=0.01)
    same = document("eval", tiny_model, "--data", text, "--reference", tiny_model, "--tokens", "40")
    assert (same["tokens"], same["relative_drop"], same["top1_agreement"]) == (39, 0, 1)
    assert same["standard_error"] is None, "one block of tokens has no spread"


def test_bench_in_every_format(artifact: Path, slmc: Slmc, document: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured once for each test; the other formats show the last measurement again."""
    kept = []
    monkeypatch.setattr("targets.measure.child.measure", lambda *args: kept.append(measure(*args)) or kept[-1])
    rows = document("bench", artifact, "-p", "16", "-n", "0,8", "-r", "2")
    assert [(r["n_prompt"], r["n_gen"], r["n_threads"]) for r in rows] == [(16, 0, 1), (0, 8, 1)]
    assert all(r["avg_ts"] > 0 and len(r["samples_ts"]) == 2 for r in rows)
    assert "p50_ms" in rows[1] and rows[0]["model_filename"] == artifact.name
    monkeypatch.setattr("targets.measure.child.measure", lambda *args: kept[0])
    fast = ("bench", artifact, "-p", "16", "-n", "0")
    lines = slmc(*fast, "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["n_prompt"] for line in lines] == [16]
    (row,) = csv.DictReader(io.StringIO(slmc(*fast, "-o", "csv").stdout))
    assert row["n_prompt"] == "16" and float(row["avg_ts"]) > 0
    table = slmc(*fast).stdout.splitlines()
    assert len(table) == 3 and "| pp16 |" in table[2] and "native" in table[2]


def test_generate(artifact: Path, slmc: Slmc, document: Document) -> None:
    options = ("generate", artifact, "-p", "The sea", "-n", "12")
    greedy = document(*options, "--temp", "0")
    assert greedy["prompt"] == "The sea" and greedy["text"].startswith("The sea") and len(greedy["text"]) > 7
    assert slmc(*options, "--temp", "0").stdout.rstrip("\n") == greedy["text"]
    drawn = [document(*options, "--seed", seed)["text"] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert document("generate", artifact, "-p", "", "-n", "3")["prompt"] == ""


def test_an_artifact_works_wherever_it_is_copied(artifact: Path, document: Document, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere with a space"
    shutil.copytree(artifact, moved)
    assert document("generate", moved, "-n", "4", "--temp", "0")["text"]


def test_targets_schemas_and_doctor(document: Document, slmc: Slmc) -> None:
    names = document("targets", "ls")
    assert "host" in names and len(names) > 1
    assert document("targets", "show", "host")["cores"] >= 1
    assert {document("schema", name)["title"] for name in ("manifest", "plan", "config", "report")} == {
        "Manifest", "Plan", "Spec", "Report",
    }  # fmt: skip
    found = document("doctor")
    assert found["missing"] == [] and found["torch"] and found["operators"]
    assert "nothing is missing" in slmc("doctor").stdout


def test_help_names_every_command(slmc: Slmc) -> None:
    shown = slmc("--help").stdout
    for name in ("build", "search", "export", "inspect", "sensitivity", "report", "targets", "schema", "validate",
                 "eval", "bench", "generate", "write", "gate", "doctor"):  # fmt: skip
        assert f"  {name} " in shown
        assert slmc(name, "--help").exit_code == 0
