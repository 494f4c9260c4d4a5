"""One artifact on three runtimes: the same text and figures, a verdict on each, and a machine with nothing but ssh."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ssh_server import Server
from tokenizers import Tokenizer

from exporters.artifact.errors import NotAvailable
from targets.device.native import platform_name
from targets.runtime.program import installed_program
from toolchain.delivery.own_runtime import tokenizer_difference
from toolchain.model.text import read_text

Document = Callable[..., Any]
TEXT = Path(__file__).parents[2] / "toolchain" / "texts" / "evaluation.txt"
RUNTIMES = ("onnxruntime", "stock", "slmc-run")
RUN = ("--runtime", "slmc-run")


@pytest.fixture(autouse=True, scope="module")
def program() -> None:
    try:
        installed_program()
    except NotAvailable as error:
        pytest.skip(str(error))


def test_the_same_text_and_figures(artifact: Path, document: Document) -> None:
    texts, perplexities = set(), []
    for runtime in RUNTIMES:
        said = document("generate", artifact, "-p", "The light", "-n", "40", "--temp", "0", "--runtime", runtime)
        texts.add(said["text"])
        read = document("eval", artifact, "--data", TEXT, "--tokens", "300", "--runtime", runtime)
        assert (said["runtime"], read["runtime"]) == (runtime, runtime)
        perplexities.append(read["perplexity"])
    assert len(texts) == 1
    assert max(perplexities) / min(perplexities) < 1.001


def test_validate_compares_all_three(artifact: Path, tiny_model: Path, document: Document) -> None:
    found = document("validate", artifact, "--reference", tiny_model, *RUN)
    assert found["runtime"] == "slmc-run" and found["verdict"].startswith("valid: 9 of 10 promises"), found["verdict"]
    assert found["onnxruntime_top1"] > 0.99 and found["stock_runtime_top1"] > 0.99
    assert abs(found["onnxruntime_perplexity_ratio"] - 1) < 1e-3
    memory = next(promise for promise in found["promises"] if promise["name"] == "memory")
    assert memory["why"] == "runtime was onnxruntime, is slmc-run"
    usual = document("validate", artifact, "--tokens", "300")
    assert usual["runtime"] == "onnxruntime" and usual["slmc_run_top1"] > 0.99


def test_bench(artifact: Path, document: Document) -> None:
    (row,) = document("bench", artifact, "-p", "0", "-n", "8", "-r", "2", *RUN)
    assert (row["runtime"], row["backend"], row["native"], row["ort_version"]) == ("slmc-run", "slmc-run", False, None)
    assert row["rss_baseline_mib"] < 8 and row["n_gen"] == 8 and row["avg_ts"] > 0
    (other,) = document("bench", artifact, "-p", "0", "-n", "8", "-r", "2")
    assert (other["runtime"], other["backend"]) == ("onnxruntime", "ORT CPU")
    assert row["rss_peak_mib"] < other["rss_peak_mib"] / 3


def test_a_baseline_is_of_one_runtime(artifact: Path, slmc: Callable[..., Any], tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    assert slmc("gate", artifact, "--baseline", baseline, "--update-baseline", *RUN).exit_code == 0
    assert json.loads(baseline.read_text(encoding="utf-8"))["figures"]["machine"]["runtime"] == "slmc-run"
    again = slmc("gate", artifact, "--baseline", baseline, "--tolerance", "latency=500%", *RUN)
    assert again.exit_code == 0, again.stdout + again.stderr
    other = slmc("gate", artifact, "--baseline", baseline, "--tolerance", "latency=500%")
    assert "runtime" in other.stdout + other.stderr


def test_limits(artifact: Path, document: Document, fails: Callable[..., None]) -> None:
    (row,) = document("bench", artifact, "-p", "0", "-n", "4", "-r", "1", *RUN, "--limit-memory", "64MB")
    assert row["runtime"] == "slmc-run"
    fails(("bench", artifact, "-q", *RUN, "--limit-memory", "1MB"), 4, "for slmc-run without one", "--force")


def test_a_machine_without_python(
    artifact: Path, tiny_model: Path, bare_server: Server, document: Document, fails: Callable[..., None]
) -> None:
    there = document("validate", artifact, "--reference", tiny_model, *RUN, *bare_server.options())
    assert there["on"].startswith("ssh://") and there["verdict"].startswith("valid: 9 of 10 promises")
    here = document("validate", artifact, "--reference", tiny_model, *RUN)
    for name in ("perplexity", "relative_drop", "token_by_token_top1", "onnxruntime_top1", "top1_agreement"):
        assert there[name] == pytest.approx(here[name], rel=1e-9), name
    (row,) = document("bench", artifact, "-p", "4", "-n", "4", "-r", "1", *RUN, *bare_server.options())[:1]
    assert row["runtime"] == "slmc-run"
    assert bare_server.left() == []
    fails(("bench", artifact, "-q", *bare_server.options()), 5, "no /nowhere/python3 there", "--runtime slmc-run")
    assert bare_server.left() == []


@pytest.fixture(scope="module")
def carrying(
    artifact: Path, tiny_model: Path, slmc: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The artifact with slmc-run for this machine."""
    out = tmp_path_factory.mktemp("carrying") / "out"
    done = slmc("export", tiny_model, "--plan", artifact / "plan.json", "-o", out, "--runtime", "slmc-run")
    assert done.exit_code == 0, done.stderr
    return out


def test_what_goes_along_is_proven_and_measured(carrying: Path, tiny_model: Path, document: Document) -> None:
    said = json.loads((carrying / "manifest.json").read_text(encoding="utf-8"))["slmc_run"]
    program = carrying / "native" / platform_name() / "slmc-run"
    assert said["tokenizer"] is None and said["programs"] == {platform_name(): program.stat().st_size}
    assert said["measured"]["rss_peak_bytes"] < 16e6 and said["measured"]["decode_ms"]["p50"] > 0
    assert "slmc-run" in (carrying / "report.html").read_text(encoding="utf-8")
    found = document("validate", carrying, "--reference", tiny_model, *RUN, "--artifact-native")
    assert found["verdict"].startswith("valid: 10 of 10 promises"), found["promises"]


def test_a_tokenizer_that_is_not_the_model_s(carrying: Path, altered: Callable[..., Path], tmp_path: Path) -> None:
    """Text is refused, ids go in and out."""

    def deny(folder: Path) -> None:
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["slmc_run"]["tokenizer"] = "it gives other ids"
        path.write_text(json.dumps(manifest), encoding="utf-8")

    folder = altered(carrying, deny)
    (tmp_path / "ids").write_bytes(struct.pack("<3i", 1, 2, 3))

    def run(*options: object) -> subprocess.CompletedProcess[str]:
        command = [str(installed_program()), str(folder), *map(str, options)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    refused = run("-p", "The")
    assert refused.returncode == 2 and "--ids, --print-ids): it gives other ids" in refused.stderr
    ids = run("--ids", tmp_path / "ids", "--print-ids", "-n", "4", "--temp", "0")
    assert ids.returncode == 0 and len(ids.stdout.split()) == 4


def test_a_tokenizer_is_compared_on_texts(carrying: Path, tmp_path: Path) -> None:
    program, path = installed_program(), carrying / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    text = read_text(TEXT, tokenizer, None).head(2000)
    assert tokenizer_difference(program, path, tokenizer, [text]) is None
    document = json.loads(path.read_text(encoding="utf-8"))
    document["normalizer"] = {"type": "Lowercase"}
    (other := tmp_path / "lower.json").write_text(json.dumps(document), encoding="utf-8")
    assert "it gives other ids than" in str(tokenizer_difference(program, other, tokenizer, [text]))
    document["normalizer"] = {"type": "NFKC"}
    other.write_text(json.dumps(document), encoding="utf-8")
    assert "normalizer NFKC" in str(tokenizer_difference(program, other, tokenizer, [text]))
