"""Files in the place of weights that are something else: what each is, and the next step that works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from exporters.artifact.opening import open_file, read_json

_ADVICE = "give a weights file, or a folder that holds one"
_LOOK_BYTES = 512


def foreign_file(path: Path) -> str | None:
    """What a file is that holds no weights which are read here, with advice; None if nothing is known against it.

    Raises:
        SlmcError: it cannot be read.
    """
    with open_file(path, _ADVICE) as file:
        start = file.read(_LOOK_BYTES)
    return next((say(path, start) for fits, say in _KINDS if fits(path, start)), None)


def foreign_folder(folder: Path) -> str | None:
    """The same of a folder without weights."""
    for name, say in _FOLDERS.items():
        found = sorted(folder.glob(name))
        if found:
            return say(found[0])
    return None


def _lfs(path: Path, start: bytes) -> str:
    size = next((line[5:].decode("ascii", "replace") for line in start.splitlines() if line[:5] == b"size "), "its")
    return (
        f"a pointer of Git LFS in the place of the file, whose {size} bytes are not here; run 'git lfs pull' in its "
        "folder (with git-lfs installed), or download the file itself"
    )


def _gguf(path: Path, start: bytes = b"") -> str:
    return (
        f"a GGUF file, as llama.cpp reads it: give the file itself in place of its folder ({path.name}), or the "
        "folder of the model that it was made from"
    )


def _onnx(path: Path, start: bytes = b"") -> str:
    return (
        "an ONNX graph, which slmc writes and does not read; give the folder of the model that it was exported from "
        "(config.json, model.safetensors, tokenizer.json)"
    )


def _page(path: Path, start: bytes) -> str:
    return (
        "a web page, which a server sent in the place of the file (it may ask for a login or for consent); download "
        "the file again and look at its size"
    )


def _adapter(path: Path) -> str:
    config_path = path.parent / "adapter_config.json"
    config = read_json(config_path, "copy the adapter again") if config_path.is_file() else {}
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    of = f" for {base}" if isinstance(base, str) else ""
    return (
        f"a LoRA adapter{of} without the model that it changes; merge them with peft first: AutoPeftModelForCausalLM."
        "from_pretrained(FOLDER).merge_and_unload().save_pretrained(NEW), copy tokenizer.json there, and give NEW"
    )


def _other_framework(path: Path) -> str:
    return (
        f"only {path.name}, weights of another framework; convert them with transformers 4, the last that reads "
        "them: AutoModelForCausalLM.from_pretrained(FOLDER, from_tf=True or from_flax=True).save_pretrained(NEW)"
    )


_KINDS: tuple[tuple[Callable[[Path, bytes], bool], Callable[[Path, bytes], str]], ...] = (
    (lambda path, start: start.startswith(b"version https://git-lfs"), _lfs),
    (lambda path, start: start.startswith(b"GGUF"), _gguf),
    (lambda path, start: path.suffix == ".onnx", _onnx),
    (lambda path, start: start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")), _page),
    (lambda path, start: path.name.startswith("adapter_model."), lambda path, start: _adapter(path)),
)
"""How a file is known, and what is said of it."""

_FOLDERS: dict[str, Callable[[Path], str]] = {
    "adapter_model.*": _adapter,
    "adapter_config.json": _adapter,
    "*.gguf": lambda path: f"{path.name}, {_gguf(path)}",
    "*.onnx": lambda path: f"{path.name}, {_onnx(path)}",
    "tf_model.h5": _other_framework,
    "flax_model.msgpack": _other_framework,
}
"""Names that are looked for in a folder without weights."""
