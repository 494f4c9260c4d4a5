"""What is read of a model before its family is known: a directory, a bare checkpoint, a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.artifact.errors import SlmcError
from exporters.artifact.opening import read_json
from toolchain.model import rwkv7
from toolchain.model.checkpoint import Checkpoint
from toolchain.model.decoder_family import conformed
from toolchain.model.gguf_model import is_gguf, read_gguf
from toolchain.model.meta_llama import from_meta
from toolchain.model.text_rules import TextFiles, text_files
from toolchain.model.tokenizer_sources import tokenizer_json
from toolchain.model.weights import find_weights, read_checkpoint


@dataclass(frozen=True)
class Source:
    """A model's files. tokenizer: the file, or where it was looked for; tokenizer_json: its content where it is no file
    of its own. texts: what says how texts begin and end. notes: what the user should know, a line each. origin: what
    its weights are, if not as trained."""

    path: Path
    checkpoint: Checkpoint
    config: Mapping[str, Any]
    tokenizer: Path
    tokenizer_json: bytes | None
    texts: TextFiles
    notes: tuple[str, ...] = ()
    origin: str | None = None

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def name(self) -> str:
        """What it is called."""
        return self.path.resolve().name if self.path.is_dir() else self.path.stem


def read_source(path: Path, tokenizer: Path | None) -> Source:
    """The files of a model, its checkpoint under the names of the families.

    Args:
        tokenizer: a tokenizer.json in place of the model's own.

    Raises:
        SlmcError: something is missing or damaged.
    """
    if not path.exists():
        raise SlmcError(f"{path}: no such file or directory; give a model directory or a checkpoint file")
    return _gguf(path, tokenizer) if is_gguf(path) else _files(path, tokenizer)


def _files(path: Path, tokenizer: Path | None) -> Source:
    config: Mapping[str, Any] = _stated_config(path) if path.is_dir() else {}
    checkpoint = read_checkpoint(find_weights(path) if path.is_dir() else path)
    checkpoint, config = conformed(*from_meta(rwkv7.conformed(checkpoint), config))
    file = tokenizer or (path if path.is_dir() else path.parent) / "tokenizer.json"
    texts = text_files(path if path.is_dir() else None, file.parent)
    made = tokenizer_json(file)
    return Source(
        path=path, checkpoint=checkpoint, config=config, tokenizer=file, tokenizer_json=made, texts=texts
    )  # fmt: skip


def _gguf(path: Path, tokenizer: Path | None) -> Source:
    model = read_gguf(path, own_tokenizer=tokenizer is None)
    if model.tokenizer is None and tokenizer is None:
        raise SlmcError(f"{path}: the file has no tokenizer; give one with --tokenizer FILE (a tokenizer.json)")
    texts = TextFiles({}, {}, model.tokenizer_config, model.tokenizer_config.get("chat_template"))
    return Source(
        path=path, checkpoint=model.checkpoint, config=model.config, tokenizer=tokenizer or path,
        tokenizer_json=tokenizer_json(tokenizer) if tokenizer else model.tokenizer, texts=texts,
        notes=(f"{path.name}: {model.origin}",), origin=model.origin,
    )  # fmt: skip


def _stated_config(folder: Path) -> dict[str, Any]:
    """config.json as Hugging Face writes it, or params.json as Meta does."""
    meta = folder / "params.json"
    return _read_config(folder / "config.json" if (folder / "config.json").is_file() else meta)


def _read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    config = read_json(path, "copy the model again")
    if not isinstance(config, dict):
        raise SlmcError(f"{path}: expected an object, found {type(config).__name__}")
    return config
