"""run.py and slmc generate: one text, one way to end, on any console, and one line for whatever is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from decoders import llama_config
from safetensors.torch import save_file
from tokenizers import Tokenizer

from exporters.artifact.manifest import read_manifest
from targets.device import run_artifact
from targets.device.native import platform_name
from targets.device.verify import SUMS_NAME, file_sha256
from toolchain.delivery.validate import artifact_session
from toolchain.model.decoder import Decoder

VOCABULARY, CONTEXT = 302, 48
LIBRARY = f"native/{platform_name()}/libslmc_ops.so"
TEMPLATE = (
    "{% for m in messages %}<|turn|>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant: {% endif %}"
)
Document = Callable[..., Any]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
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


def test_the_artifact_carries_the_rules(chatty: Path) -> None:
    rules = read_manifest(chatty).text
    assert rules is not None and rules.chat is not None
    assert (rules.begin, rules.end, rules.stop, rules.start) == ((300,), (0,), ("STOP!",), 300)
    assert rules.chat.user == ("<|turn|>user: ", "\n<|turn|>assistant: ")
    assert rules.chat.system == ("<|turn|>system: ", "\n<|turn|>user: ", "\n<|turn|>assistant: ")


def test_a_classifier_or_a_model_without_a_template_says_nothing_of_chats(artifact: Path) -> None:
    rules = read_manifest(artifact).text
    assert rules is not None and rules.chat is None and rules.begin == ()


SAME = {
    "greedy": ("-p", "The old", "-n", "20", "--temp", "0"),
    "drawn": ("-p", "The old", "-n", "20", "--temperature", "0.9", "--seed", "3", "--top-k", "9"),
    "nothing": ("-p", "The old", "-n", "0"),
    "from nothing": ("-p", "", "-n", "8"),
    "until the context is full": ("-p", "The old", "-n", "500", "--seed", "2"),
    "a string ends it": ("-p", "The old", "-n", "40", "--temp", "0", "--stop", "e", "--stop", "a"),
    "a question": ("--chat", "-p", "Who?", "-n", "12", "--temp", "0"),
    "a question with a system message": ("--chat", "-p", "Who?", "--system", "Be brief.", "-n", "12", "--temp", "0"),
    "without the operators": ("-p", "The old", "-n", "20", "--temp", "0", "--no-native"),
}


@pytest.mark.parametrize("name", SAME)
def test_run_py_and_generate_write_one_text(chatty: Path, document: Document, run: Run, name: str) -> None:
    told = document("generate", chatty, *SAME[name])
    code, out, err = run(chatty, *SAME[name])
    assert code == 0, err
    assert out == told["text"] + "\n"
    assert f"{told['tokens']} tokens written" in err and f"prompt of {told['prompt_tokens']} tokens" in err
    assert ("context of 48 tokens is full" in err) == (told["ended"] == "context")


def test_the_file_that_is_shipped_runs_by_itself(chatty: Path, document: Document) -> None:
    done = alone(chatty, *SAME["a question"])
    assert (done.returncode, done.stdout.decode()) == (
        0,
        document("generate", chatty, *SAME["a question"])["text"] + "\n",
    )
    assert not (chatty / "__pycache__").exists()


def test_every_end_token_ends_a_text_unless_told_otherwise(copy: Path, document: Document, run: Run) -> None:
    """The tokens are those that the model writes; one of them is then said to end texts, and answers another one."""
    asked = ("-p", "The old", "-n", "20", "--temp", "0")
    whole = document("generate", copy, *asked)["text"]
    written = greedy(copy, "The old", 20)
    end = next(token for token in written[3:] if token not in written[:3])
    change(copy, lambda manifest: manifest["text"].update(end=[301, end]))
    short = document("generate", copy, *asked)
    assert (short["ended"], short["tokens"]) == ("end", written.index(end))
    assert whole.startswith(short["text"]) and len(short["text"]) < len(whole)
    assert run(copy, *asked)[1] == short["text"] + "\n"
    for text in (document("generate", copy, *asked, "--no-stop")["text"], run(copy, *asked, "--no-stop")[1][:-1]):
        assert text == whole
    change(copy, lambda manifest: (manifest["text"].update(end=[301]), manifest["text"]["chat"].update(end=[end])))
    assert document("generate", copy, *asked)["text"] == whole, "an answer's end token ends no other text"
    assert run(copy, *asked)[1] == whole + "\n"


def test_an_answer_ends_where_the_template_ends_it(copy: Path, document: Document, run: Run) -> None:
    asked = ("--chat", "-p", "Who?", "-n", "16", "--temp", "0")
    whole = document("generate", copy, *asked)["text"]
    question = "<|turn|>user: Who?\n<|turn|>assistant: "
    written = greedy(copy, question, 16)
    end = next(token for token in written[3:] if token not in written[:3])
    change(copy, lambda manifest: manifest["text"]["chat"].update(end=[end]))
    short = document("generate", copy, *asked)
    assert (short["ended"], short["tokens"]) == ("end", written.index(end))
    assert whole.startswith(short["text"])
    assert run(copy, *asked)[1] == short["text"] + "\n"


def greedy(artifact: Path, prompt: str, count: int) -> list[int]:
    """The best tokens that follow a prompt, which is read behind the begin token unless it is a conversation."""
    session = artifact_session(artifact, read_manifest(artifact).io)
    tokenizer = Tokenizer.from_file(str(artifact / "tokenizer.json"))
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    logits = session.prefill(np.array([ids if prompt.startswith("<|turn|>") else [300, *ids]]))
    written: list[int] = []
    for _ in range(count):
        written.append(int(logits.argmax()))
        logits = session.step(written[-1])
    return written


def test_an_artifact_from_before_texts_had_rules_is_read(copy: Path, document: Document, run: Run) -> None:
    asked = ("-p", "The old", "-n", "8", "--temp", "0")
    change(copy, lambda manifest: manifest.pop("text"))
    code, out, err = run(copy, *asked)
    assert code == 0, err
    assert out == document("generate", copy, *asked)["text"] + "\n"


@pytest.mark.parametrize("name", ["no template", "no pieces"])
def test_chats_that_a_board_cannot_write(copy: Path, fails: Callable[..., None], run: Run, name: str) -> None:
    asked = ("--chat", "-p", "Who?")
    if name == "no template":
        change(copy, lambda manifest: manifest["text"].update(chat=None))
        fails(("generate", copy, *asked), 2, "no chat template")
        one_line(run(copy, *asked), "no chat template")
        return
    change(copy, lambda manifest: manifest["text"]["chat"].update(user=None, system=None, refusal="it writes the date"))
    one_line(run(copy, *asked), "it writes the date", "slmc generate --chat")


def one_line(found: tuple[int, str, str], *words: str) -> None:
    code, out, err = found
    assert (code, out, err.count("\n")) == (2, "", 1), found
    assert err.startswith("error: ")
    assert [word for word in words if word not in err] == []


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
