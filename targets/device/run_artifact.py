"""Run this artifact with numpy, onnxruntime and tokenizers alone: python run.py -p "Once"; a classifier labels it."""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import math
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

try:
    import numpy as np
    import onnxruntime as ort
    import tokenizers
except ImportError as missing:
    sys.exit(f"error: {missing.name or missing} cannot be imported; pip install numpy onnxruntime tokenizers")

from targets.device.continuation import (
    AGAIN,
    ArtifactError,
    Continuation,
    Model,
    chat_text,
    check_prompt,
    ending_note,
    one_line,
    softmax,
)

HERE = Path(__file__).resolve().parent
LIBRARY = "libslmc_ops.so"
NEEDED = {"onnxruntime": "1.24", "tokenizers": "0.21"}
"""Packages and their oldest releases."""
INTERRUPTED = 130


def check_versions() -> None:
    """Refuse packages that are too old for the graph or for tokenizer.json."""
    for module in (ort, tokenizers):
        least, found = NEEDED[module.__name__], str(module.__version__)
        if _release(found) < _release(least):
            raise ArtifactError(
                f"{module.__name__} {found} is too old, {least} or later is needed; pip install -U {module.__name__}"
            )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def check_file(name: str, files: dict[str, Any]) -> Path:
    """A file of the artifact with the size that the manifest says, and its SHA-256 unless it is the (large) data."""
    path, entry = HERE / name, files[name]
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; {AGAIN}")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise ArtifactError(f"{path}: {size} bytes, the manifest says {entry['bytes']}; {AGAIN}")
    if not name.endswith(".data") and hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
        raise ArtifactError(f"{path}: the contents differ from the manifest's SHA-256; {AGAIN}")
    return path


def read_manifest() -> dict[str, Any]:
    """The manifest, with the SHA-256 that SHA256SUMS says where that file still lies beside it."""
    path, sums = HERE / "manifest.json", HERE / "SHA256SUMS"
    raw = path.read_bytes()
    listed = re.search(rb"^([0-9a-f]{64})  manifest\.json$", sums.read_bytes() if sums.is_file() else b"", re.MULTILINE)
    if listed and listed[1].decode() != hashlib.sha256(raw).hexdigest():
        raise ArtifactError(f"{path}: the contents differ from SHA256SUMS; {AGAIN}")
    manifest: dict[str, Any] = json.loads(raw)
    return manifest


def open_model(manifest: dict[str, Any], native: bool, threads: int) -> Model:
    """The model, with the compiled operators for this machine if the artifact brings them and they load."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors come as exceptions
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    name, files = f"native/{platform.system().lower()}-{machine}/{LIBRARY}", manifest["files"]
    if native and name in files:
        library = str(check_file(name, files))  # one that was cut off would end this process when it is loaded
        try:
            ctypes.CDLL(library)
            options.add_session_config_entry("ai.slmc.bodies", str(manifest["io"]["bodies"]))
            options.add_session_config_entry("ai.slmc.fused", str(manifest["io"].get("fused", 0)))
            options.register_custom_ops_library(library)
        except Exception as error:
            note(f"compiled operators not used ({one_line(error)}); running on plain ONNX Runtime")
    paths = [check_file(name, files) for name in ("model.onnx", "model.onnx.data") if name in files]
    try:
        inference = ort.InferenceSession(str(paths[0]), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base
        raise ArtifactError(f"{paths[0]}: ONNX Runtime {ort.__version__} cannot open it: {one_line(error)}") from error
    return Model(inference, manifest["io"])


def open_tokenizer(files: dict[str, Any]) -> Any:
    """The tokenizer, which would cut and pad texts if its file said so."""
    path = check_file("tokenizer.json", files)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ArtifactError(
            f"{path}: tokenizers {tokenizers.__version__} cannot read it ({one_line(error)}); pip install -U tokenizers"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def prompt_ids(args: argparse.Namespace, tokenizer: Any, rules: dict[str, Any] | None) -> list[int]:
    """What the model reads: a conversation as its template writes it, or the prompt behind its begin tokens."""
    if args.chat:
        if not rules or not rules["chat"]:
            raise ArtifactError("--chat: this model has no chat template; leave it out and give a text to go on from")
        text = chat_text(rules["chat"], args.prompt, args.system)
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids
    if rules is None:
        return tokenizer.encode(args.prompt).ids or [0]
    plain = tokenizer.encode(args.prompt, add_special_tokens=False).ids
    return [*rules["begin"], *plain] or [rules["start"]]


def label(model: Model, ids: list[int], labels: Sequence[str]) -> None:
    """Print the likeliest class, then every class with its score and probability."""
    scores = model.run(np.array([ids], np.int64))[0, 0]
    print(labels[int(scores.argmax())])
    for name, score, share in zip(labels, scores, softmax(scores), strict=True):
        print(f"{name}\t{score:.4f}\t{share:.1%}")


def write(model: Model, tokenizer: Any, ids: list[int], rules: dict[str, Any], args: argparse.Namespace) -> None:
    """Print the text, piece by piece, then its figures on stderr."""
    chat = rules["chat"] if args.chat else None
    end = [] if args.no_stop else [*rules["end"], *(chat["end"] if chat else [])]
    stop = args.stop if args.no_stop else [*rules["stop"], *args.stop]
    text = Continuation(
        model, tokenizer, ids, tokens=args.tokens, temperature=args.temperature, top_k=args.top_k, seed=args.seed,
        end=end, stop=stop,
    )  # fmt: skip
    if not chat:
        print(tokenizer.decode(ids), end="", flush=True)
    for piece in text:
        print(piece, end="", flush=True)
    print(flush=True)
    if early := ending_note(text.ended, model.context):
        note(early)
    note(text.figures())


def note(text: str) -> None:
    if sys.stderr is not None:
        print(text, file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ArtifactError(f"{message}; see --help")


def _number(kind: type, least: float, most: float = math.inf) -> Any:
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or value == math.inf:
            allowed = f"{least} or more" if most == math.inf else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r}: a number is needed, {allowed}")
        return value

    return read


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!a}: not UTF-8 text") from None
    return text


def _stop_string(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("an empty string ends every text; give some characters")
    return _text(text)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("-p", "--prompt", type=_text, default="The ", help="text to go on from, or a question with --chat")
    add("-n", "--tokens", type=_number(int, 0), default=128, help="tokens to write at most")
    add("--temp", "--temperature", dest="temperature", type=_number(float, 0), default=0.7,
        help="0 always takes the best token")  # fmt: skip
    add("--top-k", type=_number(int, 1), default=40)
    add("--seed", type=_number(int, 0), default=0)
    add("--threads", type=_number(int, 1, 256), default=1)
    add("--chat", action="store_true", help="the prompt is a question; answer it as the model's chat template asks for")
    add("--system", type=_text, help="a system message, with --chat")
    add("--stop", type=_stop_string, action="append", default=[], help="a string that ends the text; repeatable")
    add("--no-stop", action="store_true", help="go on behind the model's own end tokens and stop strings")
    add("--no-native", action="store_true", help="plain ONNX Runtime, without compiled operators")
    args = parser.parse_args(arguments)
    if args.system is not None and not args.chat:
        parser.error("--system needs --chat")
    if args.system is not None and not args.system.strip():
        parser.error("--system: an empty message says nothing; leave it out")
    if args.chat and not args.prompt.strip():
        parser.error("--chat answers a question: give one with -p")
    return args


def run(arguments: Sequence[str] | None) -> None:
    args = parsed(arguments)
    check_versions()
    try:
        manifest = read_manifest()
        rules, context, classes = manifest.get("text"), manifest["io"].get("context"), manifest["io"].get("classes")
        tokenizer = open_tokenizer(manifest["files"])
        ids = prompt_ids(args, tokenizer, rules)
        check_prompt(ids, context)
        model = open_model(manifest, not args.no_native, args.threads)
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ArtifactError(f"{HERE / 'manifest.json'}: damaged ({type(error).__name__}: {error}); {AGAIN}") from error
    if classes:
        label(model, ids, classes["labels"])
    else:
        write(model, tokenizer, ids, rules or {"end": [], "stop": [], "chat": None}, args)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, 2 for what the user can mend, 130 where he stopped it."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        if sys.stdout is None:
            raise ArtifactError("standard output is closed; give it a terminal, a file or a pipe")
        run(arguments)
        sys.stdout.flush()
    except ArtifactError as error:
        note(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        note("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough; at exit Python would flush once more and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        note(f"error: the text cannot be written: {error.strerror or error}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except Exception as error:  # ONNX Runtime's errors share no base, and a manifest may say anything
        note(f"error: {HERE}: cannot be run ({type(error).__name__}: {one_line(error)}); {AGAIN}")
        return 2
    return 0


if __name__ == "__main__" and (code := main()):
    sys.exit(code)
