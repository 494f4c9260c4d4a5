"""Directories of decoders as Hugging Face transformers writes them: recognised, sized, built."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from exporters.artifact.errors import SlmcError
from toolchain.model.cache import context_for
from toolchain.model.checkpoint import Checkpoint
from toolchain.model.classifier import Classifier, classes_of
from toolchain.model.config import count_layers, matrix, without_wrappers
from toolchain.model.decoder import Decoder, DecoderClassifier, DecoderConfig, DecoderLayer
from toolchain.model.decoder_tensors import Heads, apart, renamed
from toolchain.model.decoder_types import NAMELESS, TYPES, ModelType
from toolchain.model.family import ModelOptions, Shapes
from toolchain.model.options import Config, OptionTable
from toolchain.model.rotary import Rotary, rotary_of
from toolchain.model.tree import ModelTree, grown_tree

FITTING = frozenset({"embed_tokens.weight", "layers.0.mlp.down_proj.weight"})
_SAME = frozenset(field.name for field in dataclasses.fields(DecoderConfig))


def conformed(checkpoint: Checkpoint, config: Config) -> tuple[Checkpoint, Config]:
    """A decoder's checkpoint under the decoder's own names, and its config with a model_type; all others as they are.

    Raises:
        SlmcError: a fused tensor does not fit the config, or two tensors have one meaning.
    """
    kind = config.get("model_type")
    if kind is None:
        names = {without_wrappers(name).removeprefix("decoder.") for name in checkpoint.tensors}
        kind = next((name for name in NAMELESS if TYPES[name].known_by in names), None)
    if not isinstance(kind, str) or kind not in TYPES:
        return checkpoint, config
    row = TYPES[kind]
    config = {"model_type": kind} | dict(config)
    checkpoint = renamed(checkpoint, (*row.names, (r".*rotary_emb\.inv_freq$", ""), (r"^score\.", "classifier.")))
    if row.parts:
        heads = _heads(row, config, checkpoint)
        for part in row.parts:
            checkpoint = apart(checkpoint, part, heads)
    return checkpoint, config


def _heads(row: ModelType, config: Config, checkpoint: Checkpoint) -> Heads:
    try:
        said = row.options.values(config, {})
        return Heads(said["heads"], said["groups"])
    except SlmcError as error:
        raise SlmcError(f"{checkpoint.path}: {error}") from error


@dataclass(frozen=True)
class DecoderFamily:
    """The model types of one name."""

    name: str
    model_types: tuple[str, ...]
    classifies: bool = True

    def rename(self, name: str) -> str | None:
        return without_wrappers(name)

    def fits(self, shapes: Shapes) -> bool:
        return set(shapes) >= FITTING

    def table(self, config: Config) -> OptionTable:
        return self.row(config).options

    def row(self, config: Config) -> ModelType:
        return TYPES[config.get("model_type", self.model_types[0])]

    def config(self, shapes: Shapes, config: Config, options: ModelOptions) -> DecoderConfig:
        """Sizes from the tensors, and from the config what tensors do not show.

        Raises:
            SlmcError: the config contradicts the tensors, lacks something, or asks for what is not supported.
        """
        row, sizes = self.row(config), _sizes(shapes)
        rows = sizes.pop("rows", 0)
        offset = row.options.read["offset"].default
        sizes["positions"] = max(rows - offset, 0)
        stated = {key: sizes[name] for name, keys in row.sizes.items() for key in keys}
        said = row.options.values(config, stated)
        if said["head_size"] is None:
            said["head_size"] = _divided(sizes, said)
        _check_heads(shapes, said)
        trained = sizes["positions"] or said["context"]
        reach = said["first_context"] or trained if said["rope_type"] == "longrope" else trained
        context = context_for(options, min(reach, trained))
        if said["tied"] is None:
            said["tied"] = "lm_head.weight" not in shapes
        if said["embedding_scale"] is None:
            said["embedding_scale"] = math.sqrt(sizes["hidden_size"])
        said["last_norm"] = said["last_norm"] and said["placement"] != "after"
        kinds = decoder_layers(said, sizes["layers"], trained, context)
        plain = {name: value for name, value in said.items() if name in _SAME} | sizes
        return DecoderConfig(**plain | {"layers": kinds, "context": context})

    def build(self, shapes: Shapes, config: Config, options: ModelOptions) -> nn.Module:
        classes = classes_of(shapes, config, pooling="last")
        sizes = self.config(shapes, config, options)
        with torch.device("meta"):
            return DecoderClassifier(sizes, classes) if classes else Decoder(sizes)

    def tree(self, model: nn.Module) -> ModelTree:
        assert isinstance(model, Decoder)
        classifier = isinstance(model, Classifier)
        tied = "embed_tokens" if model.config.tied and not classifier else None
        head = "classifier" if classifier else "lm_head"
        tree = grown_tree(self.name, model, model.state_specs(), head=head, positions=("embed_positions",), tied=tied)
        constants = sum(b.numel() for b in model.buffers())
        return dataclasses.replace(tree, vector_params=tree.vector_params + constants)


def _sizes(shapes: Shapes) -> dict[str, int]:
    """What the tensors show; rows: of learned positions, if there are any."""
    vocabulary, embedding = matrix(shapes, "embed_tokens.weight")
    hidden_size, inner = matrix(shapes, "layers.0.mlp.down_proj.weight")
    layers = count_layers(shapes, r"layers\.([0-9]{1,6})\.")
    found = {
        "layers": layers, "hidden_size": hidden_size, "intermediate_size": inner, "vocabulary": vocabulary,
        "embedding_size": embedding,
    }  # fmt: skip
    if "embed_positions.weight" in shapes:
        found["rows"], _ = matrix(shapes, "embed_positions.weight")
    return found


def _divided(sizes: Mapping[str, int], said: Mapping[str, Any]) -> int:
    if sizes["hidden_size"] % said["heads"]:
        raise SlmcError(f"config.json: {said['heads']} heads cannot divide a width of {sizes['hidden_size']}")
    return int(sizes["hidden_size"] // said["heads"])


def _check_heads(shapes: Shapes, said: Mapping[str, Any]) -> None:
    inner, _ = matrix(shapes, "layers.0.self_attn.q_proj.weight")
    shared, _ = matrix(shapes, "layers.0.self_attn.k_proj.weight")
    heads, groups, size = said["heads"], said["groups"], said["head_size"]
    if heads * size != inner or groups * size != shared or heads % groups or (said["rotary"] and size % 2):
        raise SlmcError(
            f"config.json: {heads} heads in {groups} groups of width {size} do not fit the weights, {inner} query and "
            f"{shared} key rows"
        )


def decoder_layers(said: Mapping[str, Any], layers: int, trained: int, context: int) -> tuple[DecoderLayer, ...]:
    """What every layer has of its own.

    Args:
        said: options as `decoder_options` names them.
        trained: tokens that the model was trained on.
        context: tokens in the cache; a window of as many is none.

    Raises:
        SlmcError: a list of layers has another length.
    """
    for name, key in (("layer_types", "layer_types"), ("plain_layers", "no_rope_layers")):
        if said[name] and len(said[name]) != layers:
            raise SlmcError(f"config.json: {key} has {len(said[name])} entries, but the weights have {layers} layers")
    main = rotary_of(said, said["head_size"], trained) if said["rotary"] else None
    local = main
    if said["local_theta"] is not None:
        plain = dict(said) | {"theta": said["local_theta"], "rope_type": "default"}
        local = rotary_of(plain, said["head_size"], trained)
    found = []
    for i in range(layers):
        turns, sliding = _turns(said, i), _sliding(said, i)
        window = said["window"] if sliding and said["window"] and said["window"] < context else 0
        rotary: Rotary | None = (local if sliding else main) if turns else None
        scale = said["scale"]
        if said["scale_by_layer"]:
            scale = (scale or said["head_size"] ** -0.5) / (i + 1)
        found.append(DecoderLayer(rotary, window, scale))
    return tuple(found)


def _turns(said: Mapping[str, Any], i: int) -> bool:
    """Whether layer i has rotary positions, if any has."""
    if said["plain_layers"]:
        return bool(said["plain_layers"][i])
    return not said["plain_every"] or (i + 1) % said["plain_every"] != 0


def _sliding(said: Mapping[str, Any], i: int) -> bool:
    """Whether layer i is one of those with a window."""
    if not said["window_used"]:
        return False
    if said["layer_types"]:
        return bool(said["layer_types"][i] == "sliding_attention")
    if said["window_plain"]:
        return not _turns(said, i)
    return i >= said["window_from"] and (not said["full_every"] or (i + 1) % said["full_every"] != 0)


def _families() -> tuple[DecoderFamily, ...]:
    named: dict[str, list[str]] = {}
    for kind, row in TYPES.items():
        named.setdefault(row.family or kind, []).append(kind)
    return tuple(DecoderFamily(name, tuple(kinds)) for name, kinds in named.items())


DECODERS = _families()
"""One family per name; those of `mistral` and `qwen2` is Llama's, whose tensors and equation they have."""
