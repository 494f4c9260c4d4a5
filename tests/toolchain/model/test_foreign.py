"""Files and folders of other kinds in the place of weights: what they are and what to do next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporters.artifact.errors import SlmcError
from toolchain.model.weights import find_weights, read_checkpoint

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 861600000\n"
FILES = [
    ("model.safetensors", LFS, "a pointer of Git LFS in the place of the file, whose 861600000 bytes", "git lfs pull"),
    ("pytorch_model.bin", LFS, "a pointer of Git LFS", "download the file itself"),
    (
        "q4.gguf",
        b"GGUF\x03\0\0\0",
        "a GGUF file, as llama.cpp reads it",
        "give the file itself",
    ),
    ("model.pth", b"GGUF\x03\0\0\0", "a GGUF file", "the folder of the model that it was made from"),
    ("model.onnx", b"\x08\x08\x12\x07pytorch", "an ONNX graph, which slmc writes", "that it was exported from"),
    ("model.pt", b"\n<!DOCTYPE html><html><body>404", "a web page, which a server sent", "download the file again"),
    ("model.safetensors", b"<HTML><title>Login", "a web page", "login"),
    ("adapter_model.safetensors", b"\x08\0\0\0\0\0\0\0{}      ", "a LoRA adapter without", "merge_and_unload()"),
]


@pytest.mark.parametrize(("name", "raw", "what", "next_step"), FILES)
def test_a_file_of_another_kind_is_named_with_what_helps(
    tmp_path: Path, name: str, raw: bytes, what: str, next_step: str
) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(SlmcError) as caught:
        read_checkpoint(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: {what}") and next_step in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"adapter_model.safetensors": b"", "adapter_config.json": b""},
            "a LoRA adapter for meta/base without",
        ),
        ({"adapter_model.bin": b""}, "a LoRA adapter without the model that it changes; merge them with peft first"),
        ({"small-q8.gguf": b"GGUF"}, "small-q8.gguf, a GGUF file"),
        ({"model.onnx": b""}, "model.onnx, an ONNX graph"),
        ({"tf_model.h5": b""}, "only tf_model.h5, weights of another framework; convert them with transformers 4"),
        ({"flax_model.msgpack": b""}, "only flax_model.msgpack"),
    ],
)
def test_a_folder_without_weights_says_what_it_holds(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw or json.dumps({"base_model_name_or_path": "meta/base"}).encode())
    with pytest.raises(SlmcError) as caught:
        find_weights(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: {said}")


def test_an_adapter_beside_a_model_is_not_the_model(tmp_path: Path) -> None:
    for name in ("adapter_model.safetensors", "own.safetensors"):
        (tmp_path / name).touch()
    assert find_weights(tmp_path).name == "own.safetensors"
