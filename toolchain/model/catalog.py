"""The model families, and the one way to open a model: a directory or a bare checkpoint file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from exporters.errors import SlmcError
from toolchain.model.family import Family, LanguageModel
from toolchain.model.spikegpt import SpikeGptFamily
from toolchain.model.text import read_tokenizer
from toolchain.model.tree import ModelTree
from toolchain.model.weights import Checkpoint, find_weights, is_plain, read_checkpoint

FAMILIES: tuple[Family, ...] = (SpikeGptFamily(),)


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory (float32, not training), its hierarchy, tokenizer, and where it came from."""

    module: nn.Module
    tree: ModelTree
    tokenizer: Tokenizer
    tokenizer_path: Path
    folder: Path
    name: str
    sha256: str

    @property
    def forward(self) -> LanguageModel:
        """The module as what it is: tokens and state in, logits and state out."""
        return cast(LanguageModel, self.module)

    def weight(self, path: str) -> Tensor:
        """The weight [rows, cols] of a layer."""
        return self.module.get_parameter(f"{path}.weight").detach()


def load_model(path: Path, tokenizer: Path | None = None) -> LoadedModel:
    """Open a model directory (config.json, weights, tokenizer.json) or a bare checkpoint with its tokenizer.

    Raises:
        SlmcError: something is missing or does not fit; the text says what.
    """
    if not path.exists():
        raise SlmcError(f"{path}: no such file or directory; give a model directory or a checkpoint file")
    folder = path if path.is_dir() else path.parent
    config = _read_config(path / "config.json") if path.is_dir() else {}
    checkpoint = read_checkpoint(find_weights(path) if path.is_dir() else path)
    shapes = {name: tuple(t.shape) for name, t in checkpoint.tensors.items()}
    family = next((f for f in FAMILIES if f.recognises(shapes, config)), None)
    if family is None:
        some = ", ".join(list(shapes)[:4])
        known = ", ".join(f.name for f in FAMILIES)
        raise SlmcError(f"{checkpoint.path}: no known model family; found tensors {some} ...; known families: {known}")
    try:
        module = family.build(shapes, config)
    except SlmcError as error:
        raise SlmcError(f"{path}: {error}") from error
    _fill(module, checkpoint)
    tokenizer_path = tokenizer or folder / "tokenizer.json"
    vocabulary = module.get_parameter("emb.weight").shape[0]
    read = read_tokenizer(tokenizer_path, vocabulary)
    name = path.resolve().name if path.is_dir() else path.stem
    return LoadedModel(module, family.tree(module), read, tokenizer_path, folder, name, checkpoint.sha256)


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SlmcError(f"{path}: not JSON ({error})") from error
    if not isinstance(config, dict):
        raise SlmcError(f"{path}: expected an object, found {type(config).__name__}")
    return config


def _fill(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Give an empty module the checkpoint's tensors, as float32, after comparing names and shapes."""
    wanted = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    missing = sorted(wanted.keys() - checkpoint.tensors.keys())
    unknown = sorted(checkpoint.tensors.keys() - wanted.keys())
    if missing or unknown:
        both = (("missing", missing), ("unknown", unknown))
        found = "; ".join(f"{what} {', '.join(names[:4])}" for what, names in both if names)
        raise SlmcError(f"{checkpoint.path}: {len(missing)} tensors missing, {len(unknown)} unknown ({found})")
    for name, shape in wanted.items():
        tensor = checkpoint.tensors[name]
        if tuple(tensor.shape) != shape:
            raise SlmcError(f"{checkpoint.path}: {name} has shape {list(tensor.shape)}, expected {list(shape)}")
        if not is_plain(tensor):
            what = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
            raise SlmcError(f"{checkpoint.path}: {name} is no plain float tensor ({what}); save the model as float32")
    floats = {name: t.to(torch.float32) for name, t in checkpoint.tensors.items()}
    module.load_state_dict(floats, assign=True)
    module.eval()
    module.requires_grad_(False)
