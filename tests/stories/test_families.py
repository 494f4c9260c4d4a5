"""Every family from a directory to a working artifact: build, validate, bench, eval, generate, run.py."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from family_cases import CASES, CONTEXT, VOCABULARY
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import nn

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import read_manifest
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from exporters.graph_nodes import read_workload
from toolchain.calibration.activity import input_activity
from toolchain.compress.catalog import compress
from toolchain.compress.recipe import LayerConfig
from toolchain.delivery.validate import artifact_session
from toolchain.estimate.latency import model_workload
from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.model.catalog import load_model
from toolchain.model.family import ModelOptions
from toolchain.quality.reference import Reference
from toolchain.search.plan import read_plan
from toolchain.tuning.distil import Schedule, tune

QUICK = ("--effort", "quick", "--formats", "int4-g32", "--formats", "int8", "--max-time", "5m")


@pytest.fixture(scope="module", params=CASES)
def built(
    request: pytest.FixtureRequest, tiny_model: Path, slmc: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A random model's folder, and the artifact that was built from it."""
    make, options = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(7)
    module, config = make()
    for p in module.parameters():
        p.data.add_(0.3 * torch.randn_like(p))
    tensors = {n: t for n, t in module.state_dict().items() if not (config.get("tie_word_embeddings") and "lm_" in n)}
    source = folder / "source"
    source.mkdir()
    save_file(tensors, source / "model.safetensors")
    (source / "config.json").write_text(json.dumps(config))
    (source / "tokenizer.json").write_bytes((tiny_model / "tokenizer.json").read_bytes())
    result = slmc("build", source, "-o", folder / "out", *options, *QUICK)
    assert result.exit_code == 0, result.stderr
    return source, folder / "out"


def test_the_family_is_written_down(built: tuple[Path, Path]) -> None:
    source, out = built
    assert read_plan(out / "plan.json").options["family"] == load_model(source).tree.family
    assert yaml.safe_load((out / "config.resolved.yaml").read_text())["family"] == load_model(source).tree.family


def test_parity_and_sizes(built: tuple[Path, Path]) -> None:
    source, out = built
    manifest = read_manifest(out)
    tree = load_model(source, options=ModelOptions(manifest.io.context)).tree
    assert manifest.source.family == tree.family
    assert manifest.parity is not None and manifest.parity.top1_agreement > 0.995
    assert manifest.parity.perplexity_ratio == pytest.approx(1, abs=1e-3)
    law = {x.path: bytes_for(format_named(manifest.recipe[x.path].format), x.rows, x.cols) for x in tree.layers}
    assert {path: entry.bytes for path, entry in manifest.recipe.items()} == law
    graph = onnx.load(out / "model.onnx", load_external_data=False).graph
    weights = [t for t in graph.initializer if t.data_type != onnx.TensorProto.INT64 and len(t.dims)]
    stored = sum(int(np.prod(t.dims)) * onnx.helper.tensor_dtype_to_np_dtype(t.data_type).itemsize for t in weights)
    assert stored == manifest.bytes.weights == sum(law.values()) + 4 * tree.vector_params
    states = sum(int(np.prod(s.shape)) * np.dtype(s.dtype).itemsize for s in manifest.io.states)
    assert manifest.bytes.states == states
    assert manifest.bytes.uncompressed == tree.bytes_fp32


def test_validate_and_eval(built: tuple[Path, Path], document: Callable[..., Any]) -> None:
    source, out = built
    found = document("validate", out, "--reference", source, "--tokens", "1024")
    assert found["token_by_token_top1"] == 1.0
    assert found["stock_runtime_top1"] > 0.995
    assert found["stock_runtime_perplexity_ratio"] == pytest.approx(1, abs=1e-3)
    assert found["top1_agreement"] > 0.5 and found["files"] == "ok"


def test_eval_reads_both_alike(
    built: tuple[Path, Path], document: Callable[..., Any], fails: Callable[..., None]
) -> None:
    source, out = built
    text = SHIPPED_TEXTS / "evaluation.txt"
    manifest = read_manifest(out)
    context, quality = manifest.io.context, manifest.quality
    found = document("eval", out, "--reference", source, "--data", text, "--tokens", "1024")
    assert quality is not None and found["tokens"] == quality.tokens
    assert quality.tokens == (1023 if context is None else 1024 - 1 - 1024 // context)
    assert found["relative_drop"] == pytest.approx(quality.relative_drop, abs=1e-6)
    if context is not None:
        fails(("eval", source, "--reference", out, "--data", text), 2, f"its context is {context}, that of", "64")


def test_bench(built: tuple[Path, Path], document: Callable[..., Any]) -> None:
    rows = document("bench", built[1], "-p", "24", "-n", "8", "-r", "2")
    assert [(r["n_prompt"], r["n_gen"]) for r in rows] == [(24, 0), (0, 8)]
    assert all(r["avg_ts"] > 0 and r["native"] for r in rows)


def test_gate(
    built: tuple[Path, Path], slmc: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A baseline is written and kept to; latency of so little work is not what is tried here."""
    source, out = built
    (tmp_path / "text").write_text((SHIPPED_TEXTS / "evaluation.txt").read_text(encoding="utf-8")[:1000])
    gate = ("gate", out, "--baseline", tmp_path / "baseline.json", "--data", tmp_path / "text")
    monkeypatch.setattr("toolchain.gate.observe.ROUNDS", 1)
    monkeypatch.setattr("toolchain.gate.observe.PROCESSES", 1)
    written = slmc(*gate, "--update-baseline", "--reference", source)
    assert written.exit_code == 0, written.stderr
    monkeypatch.setattr("toolchain.gate.observe.PROCESSES", 2)  # three in all, the least that are compared
    kept = slmc(*gate, "--tolerance", "latency=1000%", "--tolerance", "memory=100%")
    assert kept.exit_code == 0, kept.stdout + kept.stderr


def test_predicted_work_is_that_of_the_graph(built: tuple[Path, Path]) -> None:
    """Every matrix once, the one of a tied head too, and the bytes of the states, of rounded caches too."""
    source, out = built
    manifest = read_manifest(out)
    options = ModelOptions(manifest.io.context, str(read_plan(out / "plan.json").options["kv_cache"]))
    model = load_model(source, options=options)
    predicted = model_workload(model, {path: entry.format for path, entry in manifest.recipe.items()})
    exported = read_workload(out / "model.onnx")
    linear = [x.path for x in model.tree.layers if x.kind == "linear"]
    found = [sorted((n.rows, n.cols) for n in w.nodes if n.is_matrix) for w in (predicted, exported)]
    assert found[0] == found[1] and len(found[0]) == len(linear)
    assert (predicted.states, predicted.state_bytes) == (exported.states, exported.state_bytes)
    activity = input_activity(model, torch.arange(100))
    assert set(activity) == set(linear)


def test_tuning_keeps_formats_and_tied_matrices(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Latent weights of every linear layer learn, over more text than a context holds."""
    model = load_model(built[0], options=ModelOptions(read_manifest(built[1]).io.context))
    encoded = {
        x.path: compress(model.weight(x.path), LayerConfig("int4-g32", "range"), None) for x in model.tree.layers
    }
    ids = torch.randint(0, VOCABULARY, (1000,), generator=torch.Generator().manual_seed(9))
    schedule = Schedule(steps=24, streams=4, window=32, rate=2e-3, scale_rate=2e-4)
    tuned = tune(model, encoded, ids, schedule, tmp_path / "state.pt")
    assert {p: (e.format, e.nbytes) for p, e in tuned.encoded.items()} == {
        p: (e.format, e.nbytes) for p, e in encoded.items()
    }
    matrices = {f"{path}.weight" for x in model.tree.layers for path in (x.path, x.table) if path}
    assert not matrices & set(tuned.vectors)
    assert np.mean(tuned.losses[-5:]) < np.mean(tuned.losses[:5])


@pytest.mark.parametrize("release", ["newest", "oldest"])
def test_a_story_goes_on_until_the_context_is_full(
    built: tuple[Path, Path], document: Callable[..., Any], release: str, request: pytest.FixtureRequest
) -> None:
    """slmc, run.py with and without the compiled operators on any release of the runtime: the same text, and a clear
    word at the end of it."""
    python = sys.executable if release == "newest" else request.getfixturevalue("oldest_python")
    out = built[1]
    context = read_manifest(out).io.context
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    asked, words = 60, ("-p", "The old bridge")
    story = document("generate", out, *words, "-n", asked, "--temp", "0")["text"]
    prompt = len(tokenizer.encode(words[1]).ids)
    assert (context is None) == (load_model(built[0]).forward.context is None)
    for flags in ((), ("--no-native",)):
        command = [python, out / "run.py", *words, "-n", str(asked), "--temperature", "0", *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout == story + "\n"
        full = context is not None
        assert (f"the context of {context} tokens is full: the text ends here" in done.stderr) == full
        assert f"{context - prompt if full else asked} tokens written" in done.stderr


def test_what_does_not_fit_into_the_context_is_refused(built: tuple[Path, Path]) -> None:
    out = built[1]
    manifest = read_manifest(out)
    session = artifact_session(out, manifest.io)
    ids = np.ones((1, CONTEXT + 1), np.int64)
    if manifest.io.context is None:
        assert session.room is None and session.run(ids).shape[1] == CONTEXT + 1
        return
    with pytest.raises(SlmcError, match=f"{CONTEXT + 1} tokens do not fit into its context of {CONTEXT}"):
        session.run(ids)
    before = session.run(ids[:, 1:])[0, -1]
    with pytest.raises(SlmcError, match="begin a new text, or build it with a larger --context"):
        session.step(1)
    session.reset()
    assert session.room == CONTEXT
    np.testing.assert_array_equal(session.run(ids[:, 1:])[0, -1], before)


def test_texts_longer_than_the_context_are_read_in_pieces(built: tuple[Path, Path]) -> None:
    """Perplexity of a text is that of its pieces, each from an empty state."""
    model = load_model(built[0]).forward
    context = read_manifest(built[1]).io.context
    if context is None:
        pytest.skip("no context")
    ids = torch.randint(0, VOCABULARY, (2 * 64 + 10,), generator=torch.Generator().manual_seed(8))
    expected = []
    for piece in ids.split(64):
        logits, _ = model(piece[None], model.initial_state())
        expected.append(nn.functional.cross_entropy(logits[0, :-1], piece[1:], reduction="none"))
    assert torch.allclose(Reference(model, ids).losses, torch.cat(expected), atol=1e-4)
