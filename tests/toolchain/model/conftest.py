"""Tiny SpikeGPT checkpoints, tokenizers and directories to open, whole or spoilt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor

LAYERS, WIDTH, HIDDEN, VOCABULARY = 2, 4, 12, 9
Tensors = dict[str, Tensor]


def layout(layers: int, width: int, hidden: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a released SpikeGPT checkpoint, as its authors' training script saves it."""
    shapes: dict[str, tuple[int, ...]] = {"emb.weight": (vocabulary, width)}
    for i in range(layers):
        for norm in ("ln0", "ln1", "ln2") if i == 0 else ("ln1", "ln2"):
            shapes |= {f"blocks.{i}.{norm}.weight": (width,), f"blocks.{i}.{norm}.bias": (width,)}
        shapes |= {f"blocks.{i}.att.{name}": (width,) for name in ("time_decay", "time_first")}
        shapes |= {f"blocks.{i}.att.time_mix_{name}": (1, 1, width) for name in "kvr"}
        shapes |= {f"blocks.{i}.att.{n}.weight": (width, width) for n in ("key", "value", "receptance", "output")}
        shapes |= {f"blocks.{i}.ffn.time_mix_{name}": (1, 1, width) for name in "kr"}
        shapes[f"blocks.{i}.ffn.key.weight"] = (hidden, width)
        shapes[f"blocks.{i}.ffn.receptance.weight"] = (width, width)
        shapes[f"blocks.{i}.ffn.value.weight"] = (width, hidden)
    return shapes | {"ln_out.weight": (width,), "ln_out.bias": (width,), "head.weight": (vocabulary, width)}


@pytest.fixture
def tensors() -> Tensors:
    """Random float32 tensors in the released layout."""
    generator = torch.Generator().manual_seed(1)
    shapes = layout(LAYERS, WIDTH, HIDDEN, VOCABULARY)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def write_tokenizer() -> Callable[[Path, int], Path]:
    """Writes a tokenizer.json that knows the words w0, w1 ... and takes every other word for w0."""

    def write(path: Path, size: int) -> Path:
        tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0"))
        tokenizer.pre_tokenizer = WhitespaceSplit()
        tokenizer.save(str(path))
        return path

    return write


@pytest.fixture
def tokenizer_path(tmp_path: Path, write_tokenizer: Callable[[Path, int], Path]) -> Path:
    """A tokenizer of the tiny model's size."""
    return write_tokenizer(tmp_path / "words.json", VOCABULARY)


@pytest.fixture
def folder(tmp_path: Path, tensors: Tensors, write_tokenizer: Callable[[Path, int], Path]) -> Path:
    """A whole model directory: model.safetensors, config.json, tokenizer.json."""
    path = tmp_path / "tiny-1.5"
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    config = {"model_type": "spikegpt", "layers": LAYERS, "width": WIDTH, "hidden": HIDDEN, "vocabulary": VOCABULARY}
    (path / "config.json").write_text(json.dumps(config | {"embed_binarize": False, "rescale_every": 2}))
    write_tokenizer(path / "tokenizer.json", VOCABULARY)
    return path
