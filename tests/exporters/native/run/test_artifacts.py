"""Tiny models of every family in our own runtime beside ONNX Runtime with our operators."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from driven import program
from tiny import MODELS, VOCABULARY

IDS = np.random.default_rng(3).integers(0, VOCABULARY, 80)
LANGUAGE = [(n, "fp32", 32) for n in MODELS if not n.startswith(("classes", "encoder"))]
CASES = [*LANGUAGE, ("llama", "int8", 32), ("llama", "fp16", 32), ("opt", "int8", 32), ("symboliclight", "int8", 32),
         ("spikegpt", "fp32", 8)]  # fmt: skip
CLASSIFIERS = [n for n in MODELS if n.startswith(("classes", "encoder"))]


class Reference:
    """The graph on ONNX Runtime, its states carried from call to call."""

    def __init__(self, folder: Path, library: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.register_custom_ops_library(library)
        self.session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self.io: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["io"]
        self.states = {s["input"]: np.full(s["shape"], s["fill"], s["dtype"]) for s in self.io["states"]}

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        names = [self.io["logits"], *(s["output"] for s in self.io["states"])]
        every = {self.io["logits_from"]: np.array([0])} if self.io["logits_from"] else {}
        given = {self.io["tokens"]: ids[None].astype(np.int64)} | every | self.states
        logits, *after = self.session.run(names, given)
        self.states = {s["input"]: value for s, value in zip(self.io["states"], after, strict=True)}
        found: np.ndarray = logits[0]
        return found


def written(path: Path, ids: np.ndarray) -> Path:
    ids.astype("<i4").tofile(path)
    return path


@pytest.mark.parametrize("case", CASES, ids=["-".join(map(str, case)) for case in CASES])
def test_logits_and_greedy_text(
    case: tuple[str, str, int], artifact: Any, slmc_run: Any, native_path: str, tmp_path: Path
) -> None:
    folder = artifact(*case)
    reference, ids = Reference(folder, native_path), written(tmp_path / "ids", IDS)
    expected = np.concatenate([reference(IDS[:64]), reference(IDS[64:])])  # the pieces in which slmc-run reads
    result = slmc_run(folder, "--eval", ids, "--logits", tmp_path / "logits", "--threads", "2")
    assert result.returncode == 0, result.stderr
    logits = np.fromfile(tmp_path / "logits", np.float32).reshape(expected.shape)
    # The last bit of a norm may move a cached value by a whole step, which every later token then reads.
    share = {"int8": 5e-3, "fp16": 1e-3, "fp32": 1e-5}[case[1]]
    assert np.abs(logits - expected).max() <= share * max(1, np.abs(expected).max())
    shifted = expected[:-1] - expected[:-1].max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(79), IDS[1:]]
    found = json.loads(result.stdout)
    assert found["tokens"] == 79 and found["perplexity"] == pytest.approx(np.exp(losses.mean()), rel=share)
    assert found["top1"] == pytest.approx((expected[:-1].argmax(1) == IDS[1:]).mean())

    text, fresh = [], expected[-1:]
    for _ in range(16):
        text.append(int(fresh[-1].argmax()))
        fresh = reference(np.array(text[-1:]))
    result = slmc_run(folder, "--ids", ids, "-n", "16", "--temp", "0", "--print-ids")
    assert [int(line) for line in result.stdout.split()] == text, result.stderr


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_labels(name: str, artifact: Any, slmc_run: Any, native_path: str, tmp_path: Path) -> None:
    folder, ids = artifact(name), IDS[:40]
    reference = Reference(folder, native_path)
    expected, labels = reference(ids)[0], reference.io["classes"]["labels"]
    result = slmc_run(folder, "--ids", written(tmp_path / "ids", ids))
    lines = result.stdout.splitlines()
    assert lines[0] == labels[int(expected.argmax())], result.stderr
    scores = [float(line.split("\t")[1]) for line in lines[1:]]
    assert [line.split("\t")[0] for line in lines[1:]] == labels
    np.testing.assert_allclose(scores, expected, atol=2e-4)


def test_a_context_that_is_full(artifact: Any, slmc_run: Any, tmp_path: Path) -> None:
    folder = artifact("llama")
    result = slmc_run(folder, "--ids", written(tmp_path / "ids", IDS), "-n", "40", "--temp", "0", "--print-ids")
    assert len(result.stdout.split()) == 96 - 80
    assert result.stderr == "the context of 96 tokens is full: the text ends here\n"
    result = slmc_run(folder, "--ids", written(tmp_path / "long", np.resize(IDS, 97)), "-n", "1", "--print-ids")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: the prompt has 97 tokens, and the context is 96; shorten it\n"


def test_texts_longer_than_the_context_are_read_in_pieces(artifact: Any, slmc_run: Any, tmp_path: Path) -> None:
    ids = np.resize(IDS, 200)
    whole = slmc_run(artifact("llama"), "--eval", written(tmp_path / "whole", ids))
    parts = [
        slmc_run(artifact("llama"), "--eval", written(tmp_path / str(at), ids[at : at + 96])) for at in (0, 96, 192)
    ]
    found = [json.loads(result.stdout) for result in parts]
    loss = sum(np.log(f["perplexity"]) * f["tokens"] for f in found)
    assert json.loads(whole.stdout)["tokens"] == sum(f["tokens"] for f in found) == 95 + 95 + 7
    assert json.loads(whole.stdout)["perplexity"] == pytest.approx(np.exp(loss / 197), rel=1e-6)


def test_tokens_outside_the_vocabulary(artifact: Any, slmc_run: Any, tmp_path: Path) -> None:
    for name in ("spikegpt", "llama", "rwkv"):
        result = slmc_run(
            artifact(name), "--ids", written(tmp_path / "ids", np.array([VOCABULARY])), "-n", "1", "--print-ids"
        )
        assert (result.returncode, result.stdout) == (2, "") and "300" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_bench(artifact: Any, slmc_run: Any) -> None:
    rows = json.loads(slmc_run(artifact("opt"), "--bench", "--pp", "8", "--tg", "4", "-r", "2").stdout)
    assert [(row["n_prompt"], row["n_gen"]) for row in rows] == [(8, 0), (0, 4)]
    assert all(row["avg_ts"] > 0 and row["peak_rss_bytes"] > 1 << 20 for row in rows)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json: cannot be opened"),
    "not JSON": (lambda f: (f / "manifest.json").write_text("{"), "not JSON at byte 1"),
    "deep JSON": (lambda f: (f / "manifest.json").write_text("[" * 100_000), "nesting of at most 64"),
    "no graph": (lambda f: (f / "model.onnx").unlink(), "model.onnx: cannot be opened"),
    "short data": (lambda f: (f / "model.onnx.data").write_bytes(b"x"), "1 bytes, the manifest says"),
    "other graph": (lambda f: _flip(f / "model.onnx"), "differ from the manifest's SHA-256"),
    "a folder": (lambda f: ((f / "model.onnx").unlink(), (f / "model.onnx").mkdir()), "not a regular file"),
}


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_artifacts(name: str, artifact: Any, slmc_run: Any, tmp_path: Path) -> None:
    for path in artifact("rescaled").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spoil, words = SPOILT[name]
    spoil(tmp_path)
    result = slmc_run(tmp_path, "--ids", "/dev/null", "--print-ids")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1 and words in result.stderr


def test_check_reads_all_files(artifact: Any, slmc_run: Any, tmp_path: Path) -> None:
    for path in artifact("rescaled").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert slmc_run(tmp_path, "--check").stdout == "2 files as the manifest says\n"
    _flip(tmp_path / "model.onnx.data")
    assert "model.onnx.data: the contents differ" in slmc_run(tmp_path, "--check").stderr


@pytest.mark.parametrize("name", ["spikegpt", "llama", "encoder"])
def test_altered_artifacts_are_served_or_refused(name: str, artifact: Any) -> None:
    """The same alterations every time; 'make fuzz-runtime' makes more of them, with sanitizers."""
    command = [program("slmc-run-fuzz"), artifact(name), "400", "1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    served, refused = (int(part.split()[0]) for part in result.stdout.split(","))
    assert served + refused == 400 and min(served, refused) > 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no artifact named"),
        (("x", "--temp", "-1"), "'-1' is no number from 0"),
        (("x", "-n"), "-n needs a value"),
        (("x", "--what"), "'--what' is no option"),
        (("x", "--system", "s"), "--system needs --chat"),
        (("x", "--stop", ""), "an empty string"),
        (("/nowhere",), "/nowhere/manifest.json: cannot be opened"),
    ],
)
def test_usage(arguments: tuple[str, ...], words: str, slmc_run: Any) -> None:
    result = slmc_run(*arguments)
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (2, "", 1) and words in result.stderr
