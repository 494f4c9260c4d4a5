"""Texts in other clothes, by the commands that read them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from toolchain.cli.main import main
from toolchain.files.shipped import SHIPPED_TEXTS

LINES = (SHIPPED_TEXTS / "evaluation.txt").read_text(encoding="utf-8").splitlines(keepends=True)[:60]
RAW = "".join(LINES).encode()
QUICK = ("--effort", "quick", "--max-memory", "25%", "--formats", "int8")


def dressed(folder: Path) -> dict[str, Path]:
    """The same text: plain, as Windows writes it, packed JSON Lines with a field of another name."""
    lines = "".join(json.dumps({"body": line}) + "\n" for line in LINES)
    contents = {
        "plain.txt": RAW, "windows.txt": ("\ufeff" + RAW.decode().replace("\n", "\r\n")).encode("utf-16"),
        "lines.jsonl.gz": gzip.compress(lines.encode()),
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def test_every_command_that_reads_a_text_takes_a_field() -> None:
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        options = {p.name for p in command.params}
        assert ("text_field" in options) == bool(options & {"data", "calibration", "eval"}), name


def test_eval_validate_and_gate(
    tiny_model: Path, artifact: Path, document: Callable[..., Any], slmc: Callable[..., Any], tmp_path: Path
) -> None:
    texts, field = dressed(tmp_path), ("--text-field", "body")
    found = [document("eval", tiny_model, "--data", file, *field)["perplexity"] for file in texts.values()]
    assert len(set(found)) == 1
    same = [document("validate", artifact, "--data", file, *field, "--tokens", "300") for file in texts.values()]
    assert len({r["perplexity"] for r in same}) == 1
    baseline = ("gate", artifact, "--baseline", tmp_path / "b.json", *field)
    assert slmc(*baseline, "--data", texts["plain.txt"], "--update-baseline").exit_code == 0
    for file in (texts["windows.txt"], texts["lines.jsonl.gz"]):
        result = slmc(*baseline, "--data", file, "--tolerance", "latency=1000%", "--tolerance", "memory=100%")
        assert result.exit_code == 0, result.stderr


def test_a_build_of_one_text_in_two_clothes_is_one_build(
    tiny_model: Path, slmc: Callable[..., Any], tmp_path: Path
) -> None:
    texts = dressed(tmp_path)
    plans = []
    for name, file in texts.items():
        out = tmp_path / f"{name}.plan"
        given = ("--calibration", file, "--eval", file, "--set", "text_field=body")
        result = slmc("search", tiny_model, "-o", out, *QUICK, *given)
        assert result.exit_code == 0, result.stderr
        plans.append(out.read_text())
    assert plans[0] == plans[1] == plans[2]


def test_json_is_never_prose(tiny_model: Path, artifact: Path, fails: Callable[..., None], tmp_path: Path) -> None:
    file = dressed(tmp_path)["lines.jsonl.gz"]
    words = (file, "no field 'text'", "'body'", "--text-field")
    fails(("eval", tiny_model, "--data", file), 2, *words)
    fails(("validate", artifact, "--data", file), 2, *words)
    fails(("gate", artifact, "--baseline", tmp_path / "b", "--data", file, "--update-baseline"), 2, *words)
    fails(("study", tiny_model, "-o", tmp_path / "s", "--eval", file), 2, *words)
    for command in (("build", tiny_model, "-o", tmp_path / "o"), ("sensitivity", tiny_model)):
        fails((*command, *QUICK, "--calibration", file), 2, *words)
