"""The one way to open a model: a directory or a bare checkpoint file."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from exporters.artifact.text_rules import TextRules
from exporters.states import StateSpec
from targets.device.memory import available_bytes
from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.model.cache import CachedModel, KeyValueModel
from toolchain.model.checkpoint import Checkpoint
from toolchain.model.classifier import WEIGHT, Classes, Classifier
from toolchain.model.family import Family, LanguageModel, ModelOptions
from toolchain.model.offloaded import Conformed, offloaded
from toolchain.model.offloading import WeightStorage, weight_storage
from toolchain.model.recognition import candidates, shapes_of
from toolchain.model.source import Source, read_source
from toolchain.model.text_rules import begin_with, text_rules
from toolchain.model.tokenizer import read_tokenizer
from toolchain.model.tree import ModelTree
from toolchain.model.weights import is_plain


@dataclass(frozen=True)
class LoadedModel:
    """A model that computes in float32 (not training), its hierarchy, tokenizer, and where it came from.

    tokenizer_json: the tokenizer's file as it was read. rules: how its texts begin and end; None of a classifier.
    kv_cache: how its compressed twins store keys and values; the model itself keeps them exactly.
    weight_storage: whether its matrices are in memory, or read from disk for every product.
    left_out: tokens of the tokenizer's file that the model has no row for and does not need.
    notes: what the user should know of how it was read, a line each. origin: what its weights are, if not as trained.
    """

    module: nn.Module
    tree: ModelTree
    tokenizer: Tokenizer
    tokenizer_json: bytes
    folder: Path
    name: str
    sha256: str
    kv_cache: str = "fp32"
    weight_storage: WeightStorage = "memory"
    rules: TextRules | None = None
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    origin: str | None = None

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


def load_model(
    path: Path, tokenizer: Path | None = None, options: ModelOptions | None = None, room: int | None = None
) -> LoadedModel:
    """Open a model: a directory, a bare checkpoint with its tokenizer, or a GGUF file.

    Args:
        room: bytes of memory that work on the model may take; what the machine has available if not given.

    Raises:
        SlmcError: something is missing or does not fit; the text says what.
    """
    options = options or ModelOptions()
    source = read_source(path, tokenizer)
    possible = candidates(source.checkpoint, source.config, options.family)
    room_bytes = available_bytes() if room is None else room

    def opened(family: Family, renamed: Checkpoint) -> LoadedModel:
        return _opened(source, family, renamed, options, room_bytes)

    return opened(*possible[0]) if len(possible) == 1 else decided([partial(opened, *pair) for pair in possible], path)


def _opened(
    source: Source, family: Family, checkpoint: Checkpoint, options: ModelOptions, room: int | None
) -> LoadedModel:
    """The model as one of this family; the checkpoint has the family's own names."""
    if not source.config and family.table(source.config).in_file:
        source = dataclasses.replace(source, config=checkpoint.config)
    try:
        module = family.build(shapes_of(checkpoint), source.config, options)
        _refuse_cache_options(family, module, options)
        if WEIGHT in checkpoint.tensors and not isinstance(module, Classifier):
            raise SlmcError(f"it has {WEIGHT}, and classifiers of family {family.name} are not supported")
    except SlmcError as error:
        raise SlmcError(f"{source.path}: {error}") from error
    if isinstance(module, Classifier) and module.unused:
        checkpoint = _without(checkpoint, f"{module.unused}.weight")
    tree = family.tree(module)
    where = weight_storage(tree, room)
    _fill(module, tree, checkpoint, where)
    read = read_tokenizer(source.tokenizer, tree.vocabulary, source.tokenizer_json)
    known, rules = read.tokenizer, None
    if not isinstance(module, Classifier):
        rules = text_rules(source.texts, known, tree.vocabulary)
        known = begin_with(known, rules.begin)
    tree = dataclasses.replace(tree, state_bytes=sum(s.nbytes for s in stored_states(module, options)))
    unread = family.table(source.config).unread(source.config)
    notes = (f"config.json: {', '.join(unread)} not read: no option of this model type",) if unread else ()
    return LoadedModel(
        module=module, tree=tree, tokenizer=known, tokenizer_json=read.raw, folder=source.folder, name=source.name,
        sha256=checkpoint.sha256, kv_cache=options.kv_cache, weight_storage=where, rules=rules, left_out=read.left_out,
        notes=(*source.notes, *notes, *read.notes), origin=source.origin,
    )  # fmt: skip


EVIDENCE_TOKENS = 256
"""Tokens of our calibration text that each of several possible families reads."""

EVIDENCE_FACTOR = 2.0
"""So many times better than any other, and than knowing nothing, a family must read to be taken for the model's."""


def decided(ways: Sequence[Callable[[], LoadedModel]], path: Path) -> LoadedModel:
    """Of several ways to read the same tensors the one that reads a text far better than the others; with a note.

    Raises:
        SlmcError: there is none, or a way does not work.
    """
    found: list[tuple[float, str, Callable[[], LoadedModel]]] = []
    vocabulary = math.inf
    for way in ways:
        model = way()
        vocabulary = model.tree.vocabulary
        found.append((_perplexity(model), model.tree.family, way))
    found.sort(key=lambda entry: entry[0])
    scores = ", ".join(f"{name} {perplexity:.4g}" for perplexity, name, _ in found)
    best, name, way = found[0]
    if not best * EVIDENCE_FACTOR <= min(found[1][0], vocabulary):
        options = " or ".join(f"--family {name}" for _, name, _ in found)
        raise SlmcError(
            f"{path}: several families have these tensors, and our calibration text does not tell them apart "
            f"(perplexity: {scores}); say which it is with {options}, or by model_type in a config.json beside it"
        )
    model = way()
    note = (
        f"family {name}, by evidence: perplexity on {EVIDENCE_TOKENS} tokens of our calibration text: {scores}; "
        "--family NAME says it yourself"
    )
    return dataclasses.replace(model, notes=(note, *model.notes))


def _perplexity(model: LoadedModel) -> float:
    """On the beginning of the calibration text that comes with slmc."""
    text = (SHIPPED_TEXTS / "calibration.txt").read_text(encoding="utf-8")[: 16 * EVIDENCE_TOKENS]
    ids = torch.tensor([model.tokenizer.encode(text, add_special_tokens=False).ids[: EVIDENCE_TOKENS + 1]])
    if ids.shape[1] < 2:
        return math.inf
    with torch.inference_mode():
        logits, _ = model.forward(ids[:, :-1], model.forward.initial_state())
        loss = torch.nn.functional.cross_entropy(logits[0].double(), ids[0, 1:])
    return math.exp(min(float(loss), 700.0)) if math.isfinite(loss) else math.inf


def stored_twin(module: nn.Module, kv_cache: str) -> LanguageModel:
    """The module, over the same tensors, with keys and values as the compressed model keeps them."""
    twin = copy.copy(module)
    if isinstance(twin, KeyValueModel):
        twin.kv_cache = kv_cache
    return cast(LanguageModel, twin)


def stored_states(module: nn.Module, options: ModelOptions) -> list[StateSpec]:
    """The states as the compressed model carries them."""
    return stored_twin(module, options.kv_cache).state_specs()


def _without(checkpoint: Checkpoint, name: str) -> Checkpoint:
    tensors = {other: t for other, t in checkpoint.tensors.items() if other != name}
    return dataclasses.replace(checkpoint, tensors=tensors)


def _refuse_cache_options(family: Family, module: nn.Module, options: ModelOptions) -> None:
    bounded = isinstance(module, CachedModel) or cast(LanguageModel, module).context is not None
    if options.context is not None and not bounded:
        raise SlmcError(f"--context: a model of family {family.name} carries a state of fixed size; leave it out")
    if options.kv_cache == "fp32":
        return
    if not isinstance(module, KeyValueModel):
        raise SlmcError(f"--kv-cache: a model of family {family.name} has no key-value cache; leave it out")
    if options.kv_cache not in module.cache_formats:
        raise SlmcError(
            f"--kv-cache {options.kv_cache}: a model of family {family.name} keeps keys and values as "
            f"{' or '.join(module.cache_formats)}"
        )


def _fill(module: nn.Module, tree: ModelTree, checkpoint: Checkpoint, where: WeightStorage) -> None:
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
        linear = module.get_submodule(layer.path)
        if isinstance(linear, Conformed):
            linear.weight = nn.Parameter(linear.conformed(cast(Tensor, linear.weight)))
        if layer.table and where == "memory":
            module.get_submodule(layer.table).weight = module.get_parameter(f"{layer.path}.weight")
    module.eval()
    module.requires_grad_(False)


def _stream(module: nn.Module, tree: ModelTree, checkpoint: Checkpoint) -> None:
    """Exchange every layer for one that reads its matrix from the checkpoint."""
    for path in (path for layer in tree.layers for path in (layer.path, layer.table) if path):
        bias = checkpoint.tensors.get(f"{path}.bias")
        read = checkpoint.reader(f"{path}.weight")
        wide, layer = None if bias is None else bias.to(torch.float32), module.get_submodule(path)
        for name, _ in layer.named_buffers():
            layer.register_buffer(name, checkpoint.tensors[f"{path}.{name}"].to(torch.float32))
        module.set_submodule(path, offloaded(layer, read, wide))


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
