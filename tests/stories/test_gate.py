"""The gate in a project's CI: a baseline is written once, and each later artifact is compared with it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest

from exporters.artifact.manifest import MANIFEST_NAME, read_manifest
from toolchain.cli import gating
from toolchain.delivery.package import write_sums
from toolchain.gate.checks import Check
from toolchain.gate.values import read_baseline

Slmc = Callable[..., Any]
Fails = Callable[..., None]


@pytest.fixture(scope="module", autouse=True)
def quick(module_monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer rounds: what is tested here is the story, not the clock."""
    module_monkeypatch.setattr("toolchain.gate.observe.ROUNDS", 4)
    module_monkeypatch.setattr("toolchain.gate.observe.PROCESSES", 3)


@pytest.fixture(scope="module")
def module_monkeypatch() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def baseline(artifact: Path, tiny_model: Path, slmc: Slmc, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("baselines") / "tiny.json"
    done = slmc("gate", artifact, "--baseline", path, "--update-baseline", "--reference", tiny_model)
    assert done.exit_code == 0 and "commit it" in done.stdout, done.stderr
    return path


@pytest.fixture
def changed(artifact: Path, tmp_path: Path) -> Path:
    """A copy of the artifact to make worse."""
    return Path(shutil.copytree(artifact, tmp_path / "changed"))


def lenient(artifact: Path, baseline: Path) -> tuple[object, ...]:
    """The clock of a machine that runs other tests beside this one says little."""
    return ("gate", artifact, "--baseline", baseline, "--tolerance", "latency=1000%")


def sign(folder: Path) -> None:
    """Checksums that fit, as a build would have written them."""
    manifest = dataclasses.replace(read_manifest(folder), files=write_sums(folder))
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    write_sums(folder)


def scale_noise(folder: Path, name: str) -> None:
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    (tensor,) = (t for t in graph.initializer if t.name == name)
    place = {e.key: int(e.value) for e in tensor.external_data if e.key != "location"}
    data = bytearray((folder / "model.onnx.data").read_bytes())
    part = slice(place["offset"], place["offset"] + place["length"])
    scales = np.frombuffer(bytes(data[part]), np.float16)
    noise = 1 + 0.5 * np.random.default_rng(0).standard_normal(scales.shape)
    data[part] = (scales * noise).astype(np.float16).tobytes()
    (folder / "model.onnx.data").write_bytes(data)


def test_the_baseline_says_what_it_was_written_from(artifact: Path, baseline: Path) -> None:
    found, manifest = read_baseline(baseline), read_manifest(artifact)
    assert found.reference == "fp32 model" and found.artifact == artifact.name
    assert {path: layer.bytes for path, layer in found.figures.layers.items()} == {
        path: entry.bytes for path, entry in manifest.recipe.items()
    }
    assert manifest.quality is not None
    assert found.figures.predictions.perplexity == pytest.approx(manifest.quality.compressed, rel=0.2)
    assert 0 < found.figures.predictions.top1_agreement < 1 and len(found.figures.speed.token_cpu_ms) == 3


def test_unchanged(artifact: Path, baseline: Path, slmc: Slmc, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("junit.xml", "summary.md", "chart.json")}
    options = ("--junit", files["junit.xml"], "--summary", files["summary.md"], "--benchmark-json", files["chart.json"])
    done = slmc(*lenient(artifact, baseline), *options, "--annotations")
    assert done.exit_code == 0 and "no regression" in done.stdout and "::" not in done.stdout, done.stdout
    suite = ElementTree.parse(files["junit.xml"]).getroot().find("testsuite")
    assert suite is not None and suite.get("failures") == "0"
    promised = [case.get("name") for case in suite.iter("testcase") if str(case.get("name")).startswith("promised")]
    assert promised[:2] == ["promised size", "promised perplexity"]
    assert (suite.get("tests"), len(promised)) == ("16", 7), "three runtimes, of which two are held to the first"
    assert "no regression" in files["summary.md"].read_text()
    assert {row["name"] for row in json.loads(files["chart.json"].read_text())} == {
        f"{artifact.name}: {name}" for name in ("size", "perplexity", "memory", "latency")
    }


def test_a_byte_altered(changed: Path, baseline: Path, slmc: Slmc, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray((changed / "model.onnx.data").read_bytes())
    data[100] ^= 1
    (changed / "model.onnx.data").write_bytes(data)
    summary = changed.parent / "step.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    done = slmc(*lenient(changed, baseline), "--annotations", "--json")
    document = json.loads(done.stdout)
    assert done.exit_code == 3 and document["failed"] == ["files"]
    assert done.stderr.startswith("::error title=slmc gate%3A files::") and "model.onnx.data" in done.stderr
    assert "1 of 1 checks failed" in summary.read_text()


def test_a_larger_and_duller_artifact(changed: Path, baseline: Path, slmc: Slmc) -> None:
    scale_noise(changed, "head.scales")
    with (changed / "model.onnx.data").open("ab") as file:
        file.write(bytes(20_000))
    sign(changed)
    done = slmc(*lenient(changed, baseline), "--json")
    assert done.exit_code == 3, done.stdout
    assert {"size", "perplexity", "top-1 agreement"} <= set(json.loads(done.stdout)["failed"]) <= {
        "size", "perplexity", "top-1 agreement", "memory", "promised size", "promised perplexity",
    }  # fmt: skip


def test_another_machine_is_not_comparable(artifact: Path, baseline: Path, slmc: Slmc, tmp_path: Path) -> None:
    document = json.loads(baseline.read_text())
    document["figures"]["machine"]["cpu"] = "Another CPU"
    (tmp_path / "b.json").write_text(json.dumps(document))
    done = slmc(*lenient(artifact, tmp_path / "b.json"), "--json", "--annotations")
    assert done.exit_code == 0, done.stdout
    status = {check["name"]: check["status"] for check in json.loads(done.stdout)["checks"]}
    assert status["latency"] == status["memory"] == "not comparable" and status["perplexity"] == "passed"
    assert done.stderr.count("::warning") == 2


def test_a_board_is_compared_with_its_own_figures(
    artifact: Path, baseline: Path, slmc: Slmc, tmp_path: Path
) -> None:  # fmt: skip
    document = json.loads(baseline.read_text())
    document["boards"] = [document["figures"]]
    document["figures"] = json.loads(json.dumps(document["figures"]))
    document["figures"]["machine"]["cpu"] = "Another CPU"
    (tmp_path / "b.json").write_text(json.dumps(document))
    done = slmc(*lenient(artifact, tmp_path / "b.json"), "--json")
    status = {check["name"]: check["status"] for check in json.loads(done.stdout)["checks"]}
    assert done.exit_code == 0 and status["latency"] == status["memory"] == "passed"


def test_checks_of_several_boards_name_them(
    artifact: Path, baseline: Path, slmc: Slmc, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = Check(name="latency", status="passed", before="1 ms", now="1 ms", why="")
    slow = dataclasses.replace(fine, status="failed")
    monkeypatch.setattr(gating, "_checks", lambda run, *more: (slow if run.where.on == "ssh://b" else fine,))
    done = slmc("gate", artifact, "--baseline", baseline, "--on", "ssh://a", "--on", "ssh://b", "--json")
    assert done.exit_code == 3 and json.loads(done.stdout)["failed"] == ["latency on ssh://b"]


def test_what_users_get_wrong(artifact: Path, baseline: Path, tiny_model: Path, fails: Fails, tmp_path: Path) -> None:
    text = tmp_path / "other.txt"
    text.write_text("The bell of the harbour rang twice and nobody came to look. " * 40)
    gate = ("gate", artifact, "-q", "--baseline")
    fails((*gate, tmp_path / "none.json"), 2, "none.json", "--update-baseline")
    fails((*gate, baseline, "--data", text), 2, "evaluation.txt", "other.txt", "--data")
    fails((*gate, baseline, "--reference", tiny_model), 2, "--reference is for --update-baseline")
    fails((*gate, baseline, "--tolerance", "speed=1%"), 2, "--tolerance", "latency")
    fails((*gate, baseline, "--junit", tmp_path / "no" / ".."), 2, "give a name")
    fails((*gate, tmp_path, "--update-baseline"), 2, str(tmp_path), "a folder")
    fails(("gate", tmp_path / "nothing", "--baseline", baseline), 2, "no artifact")
    fails((*gate, baseline, "--on", "qemu-aarch64", "--remote-python", "python3"), 2, "emulator", "speed")
    fails((*gate, baseline, "--limit-memory", "10MB"), 4, "by forecast", "--force")
    fails((*gate, baseline, "--limit-memory", "10%"), 2, "'%'")
