"""run.py where something is wrong: altered artifacts, old packages, options, consoles; one line for each."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chatty import CONTEXT, LIBRARY, Run, alone, change, one_line

from targets.device import run_artifact
from targets.device.verify import file_sha256


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


SPOILT: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "operators cut off": (lambda a: cut(a / LIBRARY, 2000), (LIBRARY, "2000 bytes, the manifest says", "copy")),
    "a byte of the operators": (lambda a: flip(a / LIBRARY), (LIBRARY, "SHA-256")),
    "no operators": (lambda a: (a / LIBRARY).unlink(), (LIBRARY, "no such file")),
    "weights cut off": (lambda a: cut(a / "model.onnx.data", 5000), ("model.onnx.data", "5000 bytes")),
    "no weights": (lambda a: (a / "model.onnx.data").unlink(), ("model.onnx.data", "no such file")),
    "a byte of the graph": (lambda a: flip(a / "model.onnx"), ("model.onnx", "SHA-256")),
    "a byte of the tokenizer": (lambda a: flip(a / "tokenizer.json"), ("tokenizer.json", "SHA-256")),
    "half a manifest": (lambda a: cut(a / "manifest.json", 300), ("manifest.json", "SHA256SUMS", "copy")),
    "no manifest": (lambda a: (a / "manifest.json").unlink(), ("manifest.json", "damaged")),
    "a manifest without files": (lambda a: change(a, lambda m: m.pop("files")), ("manifest.json", "files")),
    "a list for a manifest": (lambda a: (a / "manifest.json").write_text("[]"), ("manifest.json", "SHA256SUMS")),
    "another graph": (
        lambda a: (
            (a / "model.onnx").write_bytes(b"nothing"),
            change(
                a, lambda m: m["files"].update({"model.onnx": {"bytes": 7, "sha256": file_sha256(a / "model.onnx")}})
            ),
        ),
        ("model.onnx", "ONNX Runtime", "cannot open it"),
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_an_altered_artifact_is_named_in_one_line(copy: Path, name: str) -> None:
    """In processes of their own: a library that was cut off used to end them without a word."""
    spoil, words = SPOILT[name]
    spoil(copy)
    done = alone(copy, "-n", "3")
    one_line((done.returncode, done.stdout.decode(), done.stderr.decode()), *words)


def test_operators_that_do_not_load_are_named_and_done_without(chatty: Path, copy: Path) -> None:
    """In a process of its own, since this one may have them loaded."""
    asked = ("-p", "The old", "-n", "12", "--temp", "0")
    (copy / LIBRARY).write_bytes(b"no library")
    change(copy, lambda m: m["files"].update({LIBRARY: {"bytes": 10, "sha256": file_sha256(copy / LIBRARY)}}))
    done, right = alone(copy, *asked), alone(chatty, *asked)
    assert (done.returncode, done.stdout) == (0, right.stdout) and right.stdout
    first = done.stderr.decode().splitlines()[0]
    assert "compiled operators not used (" in first and "plain ONNX Runtime" in first


def test_no_native_loads_nothing(copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(copy / LIBRARY, 2000)
    monkeypatch.setattr("ctypes.CDLL", lambda path: pytest.fail(f"{path} was loaded"))
    assert run(copy, "-n", "3", "--no-native")[0] == 0


@pytest.mark.parametrize(("name", "found"), [("ort", "1.22.1"), ("ort", "1.9.0"), ("tokenizers", "0.19.1")])
def test_old_packages_are_named_with_what_is_needed(
    chatty: Path, run: Run, monkeypatch: pytest.MonkeyPatch, name: str, found: str
) -> None:
    monkeypatch.setattr(getattr(run_artifact, name), "__version__", found)
    package = {"ort": "onnxruntime"}.get(name, name)
    needed = run_artifact.NEEDED[package]
    one_line(run(chatty, "-n", "3"), f"{package} {found} is too old, {needed} or later", f"pip install -U {package}")


def test_the_oldest_releases_are_those_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    stated = dict(line.split(">=") for line in project["dependencies"] if not line.startswith("numpy"))
    assert stated == run_artifact.NEEDED


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "fewer than no tokens": (("-n", "-5"), "'-5': a number is needed, 0 or more"),
    "a fraction of a token": (("-n", "1.5"), "'1.5': a number is needed"),
    "a cold temperature": (("--temperature", "-1"), "'-1': a number is needed, 0 or more"),
    "no temperature": (("--temperature", "nan"), "'nan': a number is needed"),
    "an endless temperature": (("--temp", "inf"), "'inf': a number is needed"),
    "the best of none": (("--top-k", "0"), "'0': a number is needed, 1 or more"),
    "a seed below zero": (("--seed", "-1"), "'-1': a number is needed"),
    "a number that is too long": (("--seed", "9" * 5000), "a number is needed"),
    "too many threads": (("--threads", "257"), "1 to 256"),
    "an unknown option": (("--temprature", "1"), "--temprature"),
    "half an option": (("--temper", "1"), "--temper"),
    "no UTF-8": (("-p", "\udcff"), "not UTF-8"),
    "an empty stop string": (("--stop", ""), "an empty string ends every text"),
    "a system message without a chat": (("--system", "Be brief."), "--system needs --chat"),
    "an empty system message": (("--chat", "--system", " "), "an empty message says nothing"),
    "an empty question": (("--chat", "-p", " \n"), "give one with -p"),
    "a long prompt": (("-p", "The old bridge " * 30), "and the context is 48; shorten it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_cannot_be(chatty: Path, run: Run, slmc: Callable[..., Any], name: str) -> None:
    """Refused before anything is written, by both."""
    options, words = REFUSED[name]
    one_line(run(chatty, *options), words)
    told = slmc("generate", chatty, *options)
    assert (told.exit_code, told.stdout) == (2, "") and "Traceback" not in told.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_any_console_shows_what_it_can(chatty: Path, encoding: str) -> None:
    done = alone(chatty, "-p", "Größe 😀", "-n", "5", "--temperature", "0", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Größe 😀".encode(encoding, "replace"))


@pytest.mark.parametrize("redirection", [">&-", "| head -c 1", "> /dev/full", "2>&-", "> /dev/null 2>&-"])
def test_streams_that_are_gone(chatty: Path, redirection: str) -> None:
    command = f"'{sys.executable}' '{chatty / 'run.py'}' -p 'The old' -n 30 {redirection}"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=120)
    said = done.stderr.splitlines()
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    if redirection in (">&-", "> /dev/full"):
        assert done.returncode == 2 and len(said) == 1 and said[0].startswith("error: ")
    else:
        assert done.returncode == 0 and not any(line.startswith("error") for line in said)


def test_the_rate_counts_what_was_written(chatty: Path, run: Run) -> None:
    """-n 100000 writes what fits; the rate is that of the tokens written."""
    _, out, err = run(chatty, "-p", "The", "-n", "100000", "--temperature", "0")
    tokens, seconds, rate = (float(x) for x in re.findall(r"; (\d+) tokens written in ([\d.]+) s, (\d+) tok", err)[0])
    assert tokens <= CONTEXT and out
    assert seconds == 0 or rate <= 3 * tokens / max(seconds - 0.005, 0.001)
