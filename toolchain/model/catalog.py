"""The model families, and the one way to open a model: a directory or a bare checkpoint file."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from exporters.errors import SlmcError
from exporters.opening import read_json
from exporters.states import StateSpec
from exporters.text_rules import TextRules
from targets.memory import available_bytes
from toolchain.model.cache import CachedModel
from toolchain.model.checkpoint import Checkpoint
from toolchain.model.classifier import WEIGHT, Classes, Classifier
from toolchain.model.family import Family, LanguageModel, ModelOptions
from toolchain.model.llama import LlamaFamily
from toolchain.model.meta_llama import from_meta
from toolchain.model.opt import OptFamily
from toolchain.model.residency import Residency, residency
from toolchain.model.rwkv4 import Rwkv4Family
from toolchain.model.spikegpt import SpikeGptFamily
from toolchain.model.spiking_bert import SpikingBertFamily
from toolchain.model.streamed import streamed
from toolchain.model.text import read_tokenizer
from toolchain.model.text_rules import begin_with, read_text_rules
from toolchain.model.tree import ModelTree
from toolchain.model.weights import find_weights, is_plain, read_checkpoint

FAMILIES: tuple[Family, ...] = (
    SpikeGptFamily(),
    LlamaFamily(),
    OptFamily(),
    Rwkv4Family(),
    SpikingBertFamily(),
)


@dataclass(frozen=True)
class LoadedModel:
    """A model that computes in float32 (not training), its hierarchy, tokenizer, and where it came from.

    kv_cache: how its compressed twins store keys and values; the model itself keeps them exactly.
    residency: whether its matrices are in memory, or read from disk for every product. rules: how its texts begin and
    end; None of a classifier.
    """

    module: nn.Module
    tree: ModelTree
    tokenizer: Tokenizer
    tokenizer_path: Path
    folder: Path
    name: str
    sha256: str
    kv_cache: str = "fp32"
    residency: Residency = "memory"
    rules: TextRules | None = None

    @property
    def forward(self) -> LanguageModel:
        """The module as what it is: tokens and state in, logits and state out."""
        return cast(LanguageModel, self.module)

    @property
    def classes(self) -> Classes | None:
        """What a classifier tells apart; None for a language model."""
        return self.module.classes if isinstance(self.module, Classifier) else None

    def weight(self, path: str) -> Tensor:
        """The weight [rows, cols] of a layer."""
        weight: Tensor = self.module.get_submodule(path).weight  # type: ignore[assignment]
        return weight.detach()


class UnknownFamily(SlmcError):
    """No family knows the tensors of a checkpoint, which is kept to be looked at."""

    def __init__(self, text: str, checkpoint: Checkpoint) -> None:
        super().__init__(text)
        self.checkpoint = checkpoint


def load_model(
    path: Path, tokenizer: Path | None = None, options: ModelOptions | None = None, room: int | None = None
) -> LoadedModel:
    """Open a model directory (config.json, weights, tokenizer.json) or a bare checkpoint with its tokenizer.

    Args:
        room: bytes of memory that work on the model may take; what the machine has available if not given.

    Raises:
        SlmcError: something is missing or does not fit; the text says what.
    """
    if not path.exists():
        raise SlmcError(f"{path}: no such file or directory; give a model directory or a checkpoint file")
    options = options or ModelOptions()
    folder = path if path.is_dir() else path.parent
    config: Mapping[str, Any] = _stated_config(path) if path.is_dir() else _implied_config(path)
    checkpoint = read_checkpoint(find_weights(path) if path.is_dir() else path)
    checkpoint, config = from_meta(checkpoint, config)
    family, checkpoint = _recognised(checkpoint, config)
    try:
        module = family.build(_shapes(checkpoint), config, options)
        if not isinstance(module, CachedModel):
            _refuse_cache_options(family, cast(LanguageModel, module).context, options)
        if WEIGHT in checkpoint.tensors and not isinstance(module, Classifier):
            raise SlmcError(f"it has {WEIGHT}, and classifiers of family {family.name} are not supported")
    except SlmcError as error:
        raise SlmcError(f"{path}: {error}") from error
    if isinstance(module, Classifier) and module.unused:
        checkpoint = _without(checkpoint, f"{module.unused}.weight")
    tree = family.tree(module)
    where = residency(tree, available_bytes() if room is None else room)
    _fill(module, tree, checkpoint, where)
    tokenizer_path = tokenizer or folder / "tokenizer.json"
    read = read_tokenizer(tokenizer_path, tree.vocabulary, family.unused_rows)
    rules = None
    if not isinstance(module, Classifier):
        rules = read_text_rules(path if path.is_dir() else None, tokenizer_path, read, tree.vocabulary)
        read = begin_with(read, rules.begin)
    name = path.resolve().name if path.is_dir() else path.stem
    tree = dataclasses.replace(tree, state_bytes=sum(s.nbytes for s in stored_states(module, options)))
    return LoadedModel(
        module, tree, read, tokenizer_path, folder, name, checkpoint.sha256, options.kv_cache, where, rules
    )


def stored_states(module: nn.Module, options: ModelOptions) -> list[StateSpec]:
    """The states as the compressed model carries them."""
    twin = copy.copy(module)
    if isinstance(twin, CachedModel):
        twin.kv_cache = options.kv_cache
    return cast(LanguageModel, twin).state_specs()


def _recognised(checkpoint: Checkpoint, config: Mapping[str, Any]) -> tuple[Family, Checkpoint]:
    """The family that knows these tensors, and the checkpoint under the family's own names."""
    for family in FAMILIES:
        renamed = _renamed(checkpoint, family)
        if family.recognises(_shapes(renamed), config):
            _refuse_ambiguous(checkpoint, family)
            return family, renamed
    known = ", ".join(f.name for f in FAMILIES)
    found = found_text(checkpoint, config)
    raise UnknownFamily(f"{checkpoint.path}: no known model family; {found}; known families: {known}", checkpoint)


def _renamed(checkpoint: Checkpoint, family: Family) -> Checkpoint:
    names = {name: new for name in checkpoint.tensors if (new := family.rename(name)) is not None}
    tensors = {new: checkpoint.tensors[name] for name, new in names.items()}
    places = {new: checkpoint.places[name] for name, new in names.items() if name in checkpoint.places}
    return Checkpoint(checkpoint.path, tensors, checkpoint.sha256, places)


def _without(checkpoint: Checkpoint, name: str) -> Checkpoint:
    tensors = {other: t for other, t in checkpoint.tensors.items() if other != name}
    return dataclasses.replace(checkpoint, tensors=tensors)


def _refuse_ambiguous(checkpoint: Checkpoint, family: Family) -> None:
    """Two tensors of one meaning: nobody can say which of them is the model's."""
    first: dict[str, str] = {}
    for name in checkpoint.tensors:
        new = family.rename(name)
        if new is not None and first.setdefault(new, name) != name:
            raise SlmcError(
                f"{checkpoint.path}: {first[new]} and {name} are the same tensor, {new}; remove one of them"
            )


def _shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in checkpoint.tensors.items()}


def found_text(checkpoint: Checkpoint, config: Mapping[str, Any]) -> str:
    """What a checkpoint of no known family holds, in a line: its declared type, sizes, and names with numbers as *."""
    some = ", ".join(f"{name} x {n}" if n > 1 else name for name, n, _, _ in found_tensors(checkpoint)[:6])
    params = sum(t.numel() for t in checkpoint.tensors.values())
    declared = [f"{key} {config[key]!r}" for key in ("model_type", "architectures") if config.get(key)]
    said = f"config.json says {', '.join(declared)}, " if declared else ""
    return f"{said}found {params} values in {len(checkpoint.tensors)} tensors: {some}"


def found_tensors(checkpoint: Checkpoint) -> list[tuple[str, int, str, str]]:
    """Tensors whose names differ in numbers alone, in one row each: name, how many, shape of the first, types."""
    alike: dict[str, list[Tensor]] = {}
    for name, tensor in checkpoint.tensors.items():
        alike.setdefault(re.sub(r"\.[0-9]+\.", ".*.", name), []).append(tensor)
    return [
        (name, len(some), " x ".join(map(str, some[0].shape)), ", ".join(sorted({str(t.dtype)[6:] for t in some})))
        for name, some in alike.items()
    ]


def _refuse_cache_options(family: Family, context: int | None, options: ModelOptions) -> None:
    if options.context is not None and context is None:
        raise SlmcError(f"--context: a model of family {family.name} carries a state of fixed size; leave it out")
    if options.kv_cache != "fp32":
        raise SlmcError(f"--kv-cache: a model of family {family.name} has no key-value cache; leave it out")


def _implied_config(checkpoint: Path) -> dict[str, Any]:
    """A bare RWKV-4 file differs from a SpikeGPT in nothing but its name: RWKV-4-Pile-169M-20220807-8023.pth."""
    return {"model_type": "rwkv"} if checkpoint.name.lower().startswith("rwkv-4") else {}


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


def _fill(module: nn.Module, tree: ModelTree, checkpoint: Checkpoint, where: Residency) -> None:
    """Give an empty module the checkpoint's tensors, as float32, after comparing names and shapes."""
    wanted = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    whole = _with_tied(tree, checkpoint)
    tensors = whole.tensors
    missing = sorted(wanted.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - wanted.keys())
    if missing or unknown:
        both = (("missing", missing), ("unknown", unknown))
        found = "; ".join(f"{what} {', '.join(names[:4])}" for what, names in both if names)
        raise SlmcError(f"{checkpoint.path}: {len(missing)} tensors missing, {len(unknown)} unknown ({found})")
    for name, shape in wanted.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            raise SlmcError(f"{checkpoint.path}: {name} has shape {list(tensor.shape)}, expected {list(shape)}")
        if not is_plain(tensor):
            what = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
            raise SlmcError(f"{checkpoint.path}: {name} is no plain float tensor ({what}); save the model as float32")
    if where == "disk":
        _stream(module, tree, whole)
    held = module.state_dict().keys()
    module.load_state_dict({name: tensors[name].to(torch.float32) for name in held}, assign=True)
    for layer in tree.layers:
        if layer.table and where == "memory":
            module.get_submodule(layer.table).weight = module.get_parameter(f"{layer.path}.weight")
    module.eval()
    module.requires_grad_(False)


def _stream(module: nn.Module, tree: ModelTree, checkpoint: Checkpoint) -> None:
    """Exchange every layer for one that reads its matrix from the checkpoint."""
    for path in (path for layer in tree.layers for path in (layer.path, layer.table) if path):
        bias = checkpoint.tensors.get(f"{path}.bias")
        read = checkpoint.reader(f"{path}.weight")
        wide = None if bias is None else bias.to(torch.float32)
        module.set_submodule(path, streamed(module.get_submodule(path), read, wide))


def _with_tied(tree: ModelTree, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint, with those that serve two layers under both names, whichever of the two the file has."""
    tensors, places = dict(checkpoint.tensors), dict(checkpoint.places)
    for layer in tree.layers:
        names = [f"{path}.weight" for path in (layer.path, layer.table) if path]
        held = [tensors[name] for name in names if name in tensors]
        if len(names) == 2 and held:
            if len(held) == 2 and not torch.equal(held[0], held[1]):
                raise SlmcError(
                    f"{checkpoint.path}: {names[0]} and {names[1]} differ, but the config ties them; set "
                    "tie_word_embeddings to false"
                )
            tensors |= dict.fromkeys(names, held[0])
            stored = [places[name] for name in names if name in places]
            if stored:
                places |= dict.fromkeys(names, stored[0])
    return dataclasses.replace(checkpoint, tensors=tensors, places=places)
