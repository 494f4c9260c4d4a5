"""slmc-run over an artifact that slmc built: the same text as slmc generate, the same figures as slmc eval."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driven import program
from tokenizers import Tokenizer

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
