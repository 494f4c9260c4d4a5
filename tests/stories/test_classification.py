"""A classifier from a model directory to an artifact that labels sentences, and what goes wrong on the way."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from toolchain.model.catalog import load_model
from toolchain.model.classifier import Classes
from toolchain.model.spikegpt import SpikeGpt, SpikeGptClassifier
from toolchain.model.text import read_sentences

TEXTS = Path(__file__).parents[2] / "toolchain" / "texts"
LABELS = ("night", "day")
WRONG = 10
"""Every so many sentences are labelled otherwise than the model says, so that its accuracy is 90 %."""


@pytest.fixture(scope="module")
def classifier(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with two classes in the place of its head."""
    from train_classifier import save_classifier

    loaded = load_model(tiny_model)
    assert isinstance(loaded.module, SpikeGpt)
    model = SpikeGptClassifier(replace(loaded.module.config), Classes(LABELS)).requires_grad_(False)
    weights = {n: w for n, w in loaded.module.state_dict().items() if n != "head.weight"}
    scores = torch.randn(2, model.hidden_size, generator=torch.Generator().manual_seed(5))
    model.load_state_dict(weights | {"classifier.weight": scores - scores.mean(1, keepdim=True)})
    folder = tmp_path_factory.mktemp("classifier") / "tiny-classes"
    save_classifier(model, loaded.tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def table(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of the shipped prose in GLUE's layout, labelled by the model itself but for every tenth."""
    words = (TEXTS / "evaluation.txt").read_text(encoding="utf-8").split()
    found = [" ".join(words[at : at + 4]) for at in range(0, 480, 4)]
    file = tmp_path_factory.mktemp("table") / "dev.tsv"
    file.write_text("sentence\tlabel\n" + "".join(f"{s}\t0\n" for s in found), encoding="utf-8")
    model = load_model(classifier)
    read = read_sentences(file, model.tokenizer, LABELS).sentences
    assert read is not None
    scores = torch.cat([model.forward(ids[None], model.forward.initial_state())[0][0] for ids in read.each()])
    best = (scores[:, 1] - scores[:, 0] > 0).long()
    labels = [int(b) ^ (i % WRONG == 0) for i, b in enumerate(best)]
    rows = "".join(f"{s}\t{LABELS[c]}\n" for s, c in zip(found, labels, strict=True))
    file.write_text("sentence\tlabel\n" + rows, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def built(classifier: Path, table: Path, slmc: Callable[..., Result], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier built on the table with a memory limit."""
    folder = tmp_path_factory.mktemp("built") / "classes.slmc"
    result = slmc(
        "build", classifier, "-o", folder, "--eval", table, "--metric", "accuracy", "--max-memory", "40%", "--max-drop",
        "10%", "--effort", "quick", "--formats", "int8", "--formats", "int4-g64", "--tune", "2",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    return folder


def test_it_says_the_same_everywhere(built: Path, said_everywhere: Callable[..., Any]) -> None:
    said = said_everywhere(built, "-p", "The ship")
    assert len({text.splitlines()[0] for text in said.values()}) == 1, said


def test_the_manifest_says_classes_and_accuracy(built: Path) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["io"]["classes"] == {"labels": list(LABELS), "vocabulary": 300, "whole_texts": False}
    quality = manifest["quality"]
    assert quality["metric"] == "accuracy"
    assert quality["reference"] == pytest.approx(0.9, abs=0.02)
    assert quality["compressed"] == pytest.approx(quality["reference"], abs=0.1)
    drop = 1 - quality["compressed"] / quality["reference"]
    assert quality["relative_drop"] == pytest.approx(drop, abs=1e-9)
    assert {c["name"]: c["actual"] for c in manifest["constraints"]}["max_drop"] == quality["relative_drop"]
    assert manifest["parity"]["top1_agreement"] == 1.0
    assert {s["input"] for s in manifest["io"]["states"]} >= {"state.pooled.mean", "state.pooled.tokens"}


def test_its_report_speaks_of_accuracy(built: Path, slmc: Callable[..., Result]) -> None:
    text = slmc("report", built).stdout
    assert "Accuracy" in text
    assert "bits per byte" not in (built / "report.html").read_text()


def test_validate_and_eval_agree_on_its_accuracy(
    built: Path, classifier: Path, table: Path, document: Callable[..., dict[str, float]]
) -> None:
    quality = json.loads((built / "manifest.json").read_text())["quality"]
    assert quality["tokens"] < 120  # --effort quick reads the first 1,024 tokens
    validated = document("validate", built, "--data", table, "--reference", classifier)
    evaluated = document("eval", built, "--data", table, "--reference", classifier, "--metric", "accuracy")
    assert validated["sentences"] == evaluated["sentences"] == 120
    assert validated["accuracy"] == evaluated["accuracy"]
    assert validated["reference_accuracy"] == evaluated["reference_accuracy"] == pytest.approx(0.9)
    assert validated["token_by_token_top1"] == 1.0
    assert validated["stock_runtime_top1"] == 1.0
    assert validated["kl_mean"] == pytest.approx(evaluated["kl_mean"], rel=1e-3)
    own = document("eval", classifier, "--data", table)
    assert own["accuracy"] == pytest.approx(0.9)


def test_other_sentences_break_no_promise(
    classifier: Path, built: Path, table: Path, slmc: Callable[..., Result], tmp_path: Path
) -> None:
    head, *rows = table.read_text(encoding="utf-8").splitlines()
    for seed in range(6):
        some = random.Random(seed).sample(rows, 30 + 12 * seed)
        (other := tmp_path / f"{seed}.tsv").write_text("\n".join([head, *some]) + "\n", encoding="utf-8")
        result = slmc("validate", built, "--reference", classifier, "--data", other, "-q")
        assert result.exit_code == 0, (seed, result.stdout)


def test_run_py_labels_a_sentence(built: Path, table: Path) -> None:
    sentence, label = table.read_text(encoding="utf-8").splitlines()[2].split("\t")
    command = [sys.executable, str(built / "run.py"), "-p", sentence]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0] == label
    assert [line.split("\t")[0] for line in lines[1:]] == list(LABELS)
    scores = {name: float(score) for name, score, _ in (line.split("\t") for line in lines[1:])}
    assert max(scores, key=scores.__getitem__) == label


def test_the_gate_watches_its_accuracy(
    built: Path, table: Path, slmc: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolchain.gate.observe.PROCESSES", 2)
    monkeypatch.setattr("toolchain.gate.observe.ROUNDS", 2)
    baseline, lenient = tmp_path / "baseline.json", ("--tolerance", "latency=500%")
    assert slmc("gate", built, "--baseline", baseline, "--data", table, "--update-baseline").exit_code == 0
    same = slmc("gate", built, "--baseline", baseline, "--data", table, *lenient, "--json")
    assert same.exit_code == 0, same.stdout
    raw = json.loads(baseline.read_text())
    raw["figures"]["predictions"]["accuracy"] += 0.05
    baseline.write_text(json.dumps(raw))
    worse = slmc("gate", built, "--baseline", baseline, "--data", table, *lenient, "--json")
    assert worse.exit_code == 3
    assert json.loads(worse.stdout)["failed"] == ["accuracy"]


def test_a_classifier_writes_no_text(built: Path, fails: Callable[..., None]) -> None:
    fails(("generate", built), 2, "a classifier (night, day)", "run.py")


def test_bench_measures_it(built: Path, document: Callable[..., list[dict[str, float]]]) -> None:
    rows = document("bench", built, "-p", "8", "-n", "4", "-r", "1")
    assert len(rows) == 2


def test_what_a_classifier_cannot_be_asked(
    classifier: Path, tiny_model: Path, table: Path, fails: Callable[..., None], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fails(("build", classifier, "-o", out), 2, "give --eval FILE.tsv")
    fails(("build", classifier, "-o", out, "--eval", table, "--metric", "perplexity"), 2, "its metric is accuracy")
    fails(("build", tiny_model, "-o", out, "--metric", "accuracy"), 2, "its metric is perplexity")
    fails(("eval", tiny_model, "--data", TEXTS / "evaluation.txt", "--metric", "accuracy"), 2, "its metric is perplex")
    fails(("eval", classifier, "--data", TEXTS / "evaluation.txt"), 2, "no labels in it")


def test_a_classifier_of_another_family_is_refused(
    classifier: Path, table: Path, fails: Callable[..., None], tmp_path: Path
) -> None:
    folder = tmp_path / "rwkv"
    shutil.copytree(classifier, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "rwkv", "labels": config["labels"]}))
    fails(("eval", folder, "--data", table), 2, "classifiers of family rwkv are not supported")
