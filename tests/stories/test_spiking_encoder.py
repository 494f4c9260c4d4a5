"""An encoder that spikes before its linear layers: trained in seconds, built, and run in every way there is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import read_manifest
from exporters.graph_nodes import read_workload
from toolchain.calibration.activity import input_activity
from toolchain.delivery.validate import artifact_session
from toolchain.model.catalog import load_model
from toolchain.model.text import read_sentences
from toolchain.search.layout import LEAST_ZEROS

GOOD, BAD = ("warm", "bright", "fine"), ("cold", "dull", "poor")
THINGS = ("film", "song", "story", "scene", "play", "book", "tune", "end")
QUICK = ("--effort", "quick", "--formats", "int4-g32", "--formats", "int8", "--metric", "accuracy")


def sentences(count: int, seed: int) -> str:
    """GLUE's layout; a sentence is good if its last judgement is, so that order matters."""
    random, rows = np.random.default_rng(seed), ["label\tsentence"]
    for _ in range(count):
        first, last = random.choice(2, 2)
        words = [str(random.choice((BAD, GOOD)[which])) for which in (first, last)]
        things = [str(random.choice(THINGS)) for _ in range(2)]
        filler = " ".join("so" for _ in range(random.integers(0, 4)))
        rows.append(f"{last}\tthe {things[0]} is {words[0]} but the {things[1]} {filler} is {words[1]}")
    return "\n".join(rows) + "\n"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tables")
    for name, count in (("train", 1200), ("dev", 150)):
        (folder / f"{name}.tsv").write_text(sentences(count, count))
    return folder / "train.tsv", folder / "dev.tsv"


@pytest.fixture(scope="module")
def trained(tables: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the sample's script makes of the table."""
    from train_spiking_bert import main

    folder = tmp_path_factory.mktemp("spiking") / "tiny-encoder"
    sizes = ("--vocabulary", 200, "--layers", 1, "--width", 32, "--hidden", 64, "--heads", 2, "--positions", 24)
    how = ("--batch", 16, "--epochs", 5, "--rate", 5e-3)
    options = ("--train", tables[0], "--dev", tables[1], "-o", folder, *sizes, *how)
    threads = torch.get_num_threads()
    main([str(option) for option in options], standalone_mode=False)
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def built(
    trained: Path, tables: tuple[Path, Path], slmc: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out: Path = tmp_path_factory.mktemp("built") / "out"
    result = slmc("build", trained, "-o", out, *QUICK, "--calibration", tables[0], "--eval", tables[1])
    assert result.exit_code == 0, result.stderr
    return out


def test_it_says_the_same_everywhere(built: Path, said_everywhere: Callable[..., Any]) -> None:
    said = said_everywhere(built, "-p", "The ship")
    assert len({text.splitlines()[0] for text in said.values()}) == 1, said


def test_it_has_learned_and_keeps_what_it_learned(built: Path) -> None:
    manifest = read_manifest(built)
    quality, parity, io = manifest.quality, manifest.parity, manifest.io
    assert quality is not None and parity is not None and io.classes is not None
    assert quality.metric == "accuracy" and quality.reference > 0.9 and quality.compressed > 0.85
    assert parity.top1_agreement == 1.0 and parity.logits_max_abs < 1e-3
    assert io.states == () and io.context == 24 and io.classes.whole_texts
    assert manifest.bytes.states == 0 and manifest.source.family == "spiking-bert"


def test_layers_that_see_few_spikes_are_stored_input_major(trained: Path, built: Path, tables: Any) -> None:
    """Zeros are counted spike step by spike step; the inputs of all layers but the last are spikes."""
    model = load_model(trained)
    assert model.classes is not None
    text = read_sentences(tables[0], model.tokenizer, model.classes.labels, model.forward.context)
    assert text.sentences is not None
    shares = {path: 1 - a.nonzero for path, a in input_activity(model, text.sentences.head(2048)).items()}
    recipe = read_manifest(built).recipe
    event = {path for path, entry in recipe.items() if entry.format.startswith("event/")}
    assert event == {path for path, share in shares.items() if share >= LEAST_ZEROS} and len(event) >= 2
    activity = input_activity(model, text.sentences.head(256))
    assert {path for path, seen in activity.items() if seen.spikes} == set(activity) - {"classifier"}
    operators = [node.operator for node in read_workload(built / "model.onnx").nodes]
    assert operators.count("EventLinear") == len(event)
    assert operators.count("IntegrateFire") == 7


def test_every_way_to_run_it_agrees(built: Path, trained: Path, tables: Any, document: Callable[..., Any]) -> None:
    found = document("validate", built, "--data", tables[1], "--reference", trained)
    assert found["sentences"] == 150 and found["files"] == "ok"
    assert found["stock_runtime_top1"] == 1.0 and found["token_by_token_top1"] is None
    evaluated = document("eval", built, "--data", tables[1], "--reference", trained)
    assert evaluated["accuracy"] == found["accuracy"] and evaluated["top1_agreement"] > 0.9


def test_other_sentences_break_no_promise(trained: Path, built: Path, slmc: Callable[..., Any], tmp_path: Path) -> None:
    for seed in range(6):
        (table := tmp_path / f"{seed}.tsv").write_text(sentences(40 + 20 * seed, seed))
        for more in ((), ("--no-native",)):
            result = slmc("validate", built, "--reference", trained, "--data", table, "-q", *more)
            assert result.exit_code == 0, (seed, more, result.stdout)


def test_inspect(trained: Path, slmc: Callable[..., Any]) -> None:
    shown = slmc("inspect", trained).stdout
    assert "spiking-bert" in shown and "encoder.layer.0" in shown


def test_bench_and_gate(
    built: Path, tables: Any, document: Callable[..., Any], slmc: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    rows = document("bench", built, "-p", "16", "-n", "4", "-r", "2")
    assert [(r["n_prompt"], r["n_gen"]) for r in rows] == [(16, 0), (0, 4)] and all(r["avg_ts"] > 0 for r in rows)
    monkeypatch.setattr("toolchain.gate.observe.ROUNDS", 2)
    monkeypatch.setattr("toolchain.gate.observe.PROCESSES", 2)
    gate = ("gate", built, "--baseline", tmp_path / "baseline.json", "--data", tables[1])
    assert slmc(*gate, "--update-baseline").exit_code == 0
    kept = slmc(*gate, "--tolerance", "latency=1000%", "--tolerance", "memory=100%")
    assert kept.exit_code == 0, kept.stdout + kept.stderr


@pytest.mark.parametrize("flags", [(), ("--no-native",)], ids=["native", "stock"])
def test_run_py_labels_a_sentence(built: Path, flags: tuple[str, ...]) -> None:
    for text, label in (("the film is cold but the song is warm", "positive"),
                        ("the film is warm but the song is cold", "negative")):  # fmt: skip
        command = [sys.executable, str(built / "run.py"), "-p", text, *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout.splitlines()[0] == label


def test_a_text_in_pieces_is_refused(built: Path) -> None:
    session = artifact_session(built, read_manifest(built).io)
    tokens = np.ones((1, 6), np.int64)
    whole = session.run(tokens)
    with pytest.raises(SlmcError, match="reads a whole text in one call, and 6 tokens of this one are read"):
        session.run(tokens[:, :1])
    session.reset()
    np.testing.assert_array_equal(session.run(tokens), whole)


def test_sentences_longer_than_its_places(
    trained: Path, built: Path, fails: Callable[..., None], tmp_path: Path
) -> None:
    table = tmp_path / "long.tsv"
    table.write_text("label\tsentence\n1\tthe film is warm\n0\t" + "the " * 25 + "\n")
    fails(("eval", built, "--data", table), 2, "line 3", "25 tokens", "24 at most")
    fails(("build", trained, "-o", tmp_path / "out", "--eval", table), 2, "line 3", "25 tokens", "24 at most")


def test_options_that_it_has_no_use_for(trained: Path, tables: Any, fails: Callable[..., None], tmp_path: Path) -> None:
    build = ("build", trained, "-o", tmp_path / "out", "--eval", tables[1])
    fails((*build, "--kv-cache", "int8"), 2, "--kv-cache", "spiking-bert", "no key-value cache")
    fails((*build, "--metric", "perplexity"), 2, "a classifier", "accuracy")
    config = trained / "config.json"
    before = config.read_text()
    try:
        config.write_text(json.dumps(json.loads(before) | {"spike_reset": "none"}))
        fails(build, 2, "spike_reset is 'none'", "'hard', 'soft'")
    finally:
        config.write_text(before)
