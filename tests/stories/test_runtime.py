"""slmc-run over an artifact that slmc built: the same text as slmc generate, the same figures as slmc eval."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driven import program
from tokenizers import Tokenizer

ROOT = Path(__file__).parents[2]
PROMPT = "The light was"


def slmc_run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(program("slmc-run")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)


def test_the_same_text(artifact: Path, slmc: Callable[..., Any]) -> None:
    for more in ((), ("--stop", "e")):
        expected = slmc("generate", artifact, "-p", PROMPT, "-n", "60", "--temp", "0", *more)
        found = slmc_run(artifact, "-p", PROMPT, "-n", "60", "--temp", "0", *more)
        assert (found.returncode, found.stdout) == (0, expected.stdout), found.stderr


def test_the_same_text_for_the_same_seed(artifact: Path) -> None:
    first, again, other = (slmc_run(artifact, "-p", PROMPT, "--seed", seed, "--top-p", "0.9") for seed in (1, 1, 2))
    assert first.stdout == again.stdout != other.stdout and first.stdout.startswith(PROMPT)


def test_the_same_perplexity(artifact: Path, document: Callable[..., Any], tmp_path: Path) -> None:
    text = Path(__file__).parents[2] / "toolchain" / "texts" / "evaluation.txt"
    expected = document("eval", artifact, "--data", text, "--tokens", "500")
    ids = Tokenizer.from_file(str(artifact / "tokenizer.json")).encode(text.read_text(encoding="utf-8")).ids[:500]
    np.array(ids, "<i4").tofile(tmp_path / "ids")
    found = json.loads(slmc_run(artifact, "--eval", tmp_path / "ids").stdout)
    assert found["tokens"] == expected["tokens"]
    assert found["perplexity"] == pytest.approx(expected["perplexity"], rel=1e-4)


def test_all_files_are_checked(artifact: Path) -> None:
    listed = json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))["files"]
    assert slmc_run(artifact, "--check").stdout == f"{len(listed)} files as the manifest says\n"


def compiled(source: Path, out: Path) -> Path:
    """A C program with the library in it."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler here")
    library, headers = program("libslmc_run.a"), ROOT / "exporters" / "native" / "run"
    command = [
        compiler,
        "-std=c11",
        "-Wall",
        "-Werror",
        f"-I{headers}",
        source,
        library,
        "-lstdc++",
        "-lm",
        "-lpthread",
    ]
    subprocess.run([*command, "-o", out], check=True)
    return out


def test_the_library_in_a_c_program(artifact: Path, tmp_path: Path) -> None:
    found = subprocess.run(
        [compiled(ROOT / "tests" / "stories" / "embedded.c", tmp_path / "embedded"), artifact],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found
    counts, missing, moved = found.stdout.splitlines()
    vocabulary = Tokenizer.from_file(str(artifact / "tokenizer.json")).get_vocab_size()
    assert counts.endswith(f" tokens, {vocabulary} logits")
    assert missing == "model.onnx.data: it is not among the files that are given"
    assert "model.onnx.data: " in moved and ("aligned" in moved or "bytes" in moved)


def test_the_sample_program(artifact: Path, tmp_path: Path) -> None:
    story = compiled(ROOT / "samples" / "c" / "story.c", tmp_path / "story")
    found = subprocess.run([story, artifact, PROMPT], capture_output=True, text=True, check=False)
    assert found.returncode == 0 and PROMPT in found.stdout, found
    first, second = found.stdout.splitlines()[-2:]
    assert first == second and "comes next" in first, "a restored state goes on as before"
