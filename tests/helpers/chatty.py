"""An artifact that chats, and run.py over it: in this process, and alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from decoders import llama_config
from safetensors.torch import save_file
from tokenizers import Tokenizer

from targets.device import run_artifact
from targets.device.native import platform_name
from targets.device.verify import SUMS_NAME, file_sha256
from toolchain.model.decoder import Decoder

VOCABULARY, CONTEXT = 302, 48
LIBRARY = f"native/{platform_name()}/libslmc_ops.so"
TEMPLATE = (
    "{% for m in messages %}<|turn|>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant: {% endif %}"
)
Document = Callable[..., Any]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def chatty(tiny_model: Path, slmc: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of a random Llama with a chat template, begin and end tokens."""
    folder = tmp_path_factory.mktemp("chatty")
    source = folder / "source"
    source.mkdir()
    torch.manual_seed(11)
    model = Decoder(llama_config(1, 32, 48, VOCABULARY, heads=4, groups=2, head_size=8, context=64, tied=False))
    save_file({n: p + 0.3 * torch.randn_like(p) for n, p in model.state_dict().items()}, source / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|begin|>", "<|turn|>"])
    tokenizer.save(str(source / "tokenizer.json"))
    files: dict[str, Any] = {
        "config": {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 0,
                   "max_position_embeddings": 64},
        "generation_config": {"eos_token_id": [0], "stop_strings": "STOP!"},
        "tokenizer_config": {"bos_token": "<|begin|>", "add_bos_token": True, "chat_template": TEMPLATE},
    }  # fmt: skip
    for name, content in files.items():
        (source / f"{name}.json").write_text(json.dumps(content))
    options = ("--context", CONTEXT, "--effort", "quick", "--formats", "int8", "--max-drop", "50%")
    result = slmc("build", source, "-o", folder / "out", *options)
    assert result.exit_code == 0, result.stderr
    return folder / "out"


@pytest.fixture
def copy(chatty: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(chatty, tmp_path / "copy"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """run.py's program in this process, over an artifact: exit code, stdout, stderr."""

    def call(artifact: Path, *args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(run_artifact, "HERE", artifact)
        code = run_artifact.main([str(arg) for arg in args])
        return code, *capfd.readouterr()

    return call


def resum(artifact: Path) -> None:
    """Make the sums agree with a manifest that was changed."""
    path = artifact / "manifest.json"
    lines = [line for line in (artifact / SUMS_NAME).read_text().splitlines() if not line.endswith("manifest.json")]
    (artifact / SUMS_NAME).write_text("\n".join([*lines, f"{file_sha256(path)}  manifest.json"]) + "\n")


def change(artifact: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((artifact / "manifest.json").read_text())
    edit(document)
    (artifact / "manifest.json").write_text(json.dumps(document))
    resum(artifact)


def alone(artifact: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-I", str(artifact / "run.py"), *args]
    if "PYTHONIOENCODING" in environment:
        command.remove("-I")
    return subprocess.run(command, capture_output=True, timeout=120, check=False, env=os.environ | environment)


def one_line(found: tuple[int, str, str], *words: str) -> None:
    code, out, err = found
    assert (code, out, err.count("\n")) == (2, "", 1), found
    assert err.startswith("error: ")
    assert [word for word in words if word not in err] == []
