"""What users get wrong about artifacts: one line on stderr each, with the thing, what was found and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

Fails = Callable[..., None]


@pytest.fixture
def broken(artifact: Path, tmp_path: Path) -> Path:
    """A copy of the artifact to spoil."""
    return Path(shutil.copytree(artifact, tmp_path / "broken"))


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def edit(artifact: Path, **changes: object) -> None:
    path = artifact / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def escape(artifact: Path) -> None:
    edit(artifact, files={"../../outside": {"bytes": 0, "sha256": "0" * 64}})


def link(folder: Path) -> None:
    target = folder.rename(folder.parent.parent / "elsewhere")
    folder.symlink_to(target)


SPOILERS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "a byte of the weights": (lambda a: flip(a / "model.onnx.data"), ("model.onnx.data", "SHA-256", "copy")),
    "a byte of the report": (lambda a: flip(a / "report.json"), ("report.json", "SHA-256")),
    "a longer file": (lambda a: (a / "run.py").write_text("import os"), ("run.py", "9 bytes", "the manifest says")),
    "a missing file": (lambda a: (a / "tokenizer.json").unlink(), ("tokenizer.json", "missing")),
    "a way out": (escape, ("../../outside", "leaves the artifact")),
    "a linked folder": (lambda a: link(a / "native"), ("native", "a link to a folder")),
    "a newer version": (lambda a: edit(a, schema_version=2), ("schema_version", "2", "reads 1")),
    "something unknown": (lambda a: edit(a, surprise=1), ("surprise",)),
    "half a manifest": (lambda a: (a / "manifest.json").write_text('{"schema'), ("manifest.json", "not JSON")),
}


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_artifacts_that_were_tampered_with(broken: Path, fails: Fails, spoiler: str) -> None:
    spoil, words = SPOILERS[spoiler]
    text = broken.parent / "text.txt"
    text.write_text("The ship came in with the tide. " * 40)
    spoil(broken)
    for command in (("inspect",), ("validate",), ("eval", "--data", text), ("bench",), ("generate",), ("report",)):
        fails((command[0], broken, *command[1:]), 2, *words)


def test_what_is_no_artifact(tmp_path: Path, tiny_model: Path, fails: Fails) -> None:
    for command in ("validate", "bench", "generate", "report"):
        for path in (tmp_path / "nothing", tmp_path, tiny_model, tiny_model / "config.json"):
            fails((command, path), 2, path, "no artifact", "slmc build")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bench", "-p", "many"), ("-p", "'many'", "whole numbers")),
        (("bench", "-p", "-5"), ("-p", "'-5'")),
        (("bench", "-n", "1,,2"), ("-n", "'1,,2'")),
        (("bench", "-t", "0"), ("-t", "'0'", "from 1")),
        (("bench", "-t", "99999"), ("-t", "256")),
        (("bench", "-p", "0", "-n", "0"), ("nothing to measure",)),
        (("generate", "--temp", "nan"), ("nan",)),
        (("generate", "-p", "\udcff"), ("-p", "UTF-8")),
        (("report", "--format", "pdf"), ("pdf", "html")),
        (("eval", "--data", "/nowhere.txt"), ("/nowhere.txt", "no such text")),
    ],
)
def test_arguments_of_artifact_commands(
    artifact: Path, fails: Fails, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    fails((arguments[0], artifact, *arguments[1:]), 2, *words)


def test_the_wrong_reference(artifact: Path, model: Path, fails: Fails) -> None:
    tensors = load_file(model / "model.safetensors")
    save_file(tensors | {"head.weight": tensors["head.weight"] * 2}, model / "model.safetensors")
    fails(("validate", artifact, "--reference", model), 2, model, "not the model", "SHA-256")


def test_names_of_targets_and_schemas(fails: Fails) -> None:
    fails(("targets", "show", "toaster"), 2, "toaster", "host")
    fails(("schema", "nonsense"), 2, "nonsense", "manifest")
