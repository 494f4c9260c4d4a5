"""The directories that SpikingBrain was released in: their options, and their tensors' names."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import torch
from torch import nn

from exporters.artifact.errors import SlmcError
from toolchain.model.cache import context_for
from toolchain.model.config import count_layers, matrix, without_wrappers
from toolchain.model.family import ModelOptions, Shapes
from toolchain.model.options import Config, Option, OptionTable, positive, whole
from toolchain.model.spike_counts import GroupedLinear
from toolchain.model.spikingbrain import SpikingBrain, SpikingBrainConfig
from toolchain.model.table_family import TableFamily
from toolchain.model.tree import Block, ModelTree


def layer_numbers(key: str, value: Any) -> tuple[int, ...]:
    """A list of whole numbers, 0 or above."""
    if not isinstance(value, list) or not all(type(entry) is int and entry >= 0 for entry in value):
        raise SlmcError(f"config.json: {key} is {value!r}; a list of numbers of layers is needed")
    return tuple(value)


TABLE = OptionTable(
    {
        "attention": Option(("attn_layers",), layer_numbers, None),
        "window": Option(("sliding_window",), whole, 4096),
        "theta": Option(("rope_theta",), positive, 1000000.0),
        "epsilon": Option(("norm_eps",), positive, 1e-6),
        "context": Option(("max_position_embeddings",), whole, 131072),
    },
    sizes=frozenset(
        {"vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads",
         "num_key_value_heads"}
    ),
    fixed={
        "use_short_conv": (False,), "tie_word_embeddings": (False,), "hidden_act": ("swish", "silu"),
        "elementwise_affine": (True,),
    },
    ignored=frozenset({"attn_mode", "conv_size", "fuse_cross_entropy"}),
)  # fmt: skip
"""What a config.json says. Without attn_layers every second layer has attention, from the second one on."""


class SpikingBrainFamily(TableFamily):
    """Directories of the releases (model_type gla_swa); those with scales beside the weights are W8ASpike's."""

    name = "spikingbrain"
    model_types = ("gla_swa",)
    options = TABLE
    tensors = frozenset({"embeddings.weight", "layers.0.attn_norm.weight", "layers.0.mlp.gate_proj.weight"})

    def rename(self, name: str) -> str | None:
        name = without_wrappers(name).replace(".weight_quantizer.scales", ".scales")
        name = re.sub(r"\.g_norm\.weight$", ".g_norm.norm.weight", name)
        return None if name.endswith(("down_proj.scales", "weight_quantizer.zeros")) else name

    def config(self, shapes: Shapes, config: Config, options: ModelOptions) -> SpikingBrainConfig:
        """Sizes from the tensors, options from the config.

        Raises:
            SlmcError: the config contradicts the tensors, or they lack a part.
        """
        vocabulary, width = matrix(shapes, "embeddings.weight")
        hidden, _ = matrix(shapes, "layers.0.mlp.gate_proj.weight")
        shared, _ = matrix(shapes, "layers.0.attn.k_proj.weight")
        layers = count_layers(shapes, r"layers\.([0-9]{1,6})\.")
        linear = {i for i in range(layers) if f"layers.{i}.attn.g_norm.norm.weight" in shapes}
        (size,) = shapes.get(f"layers.{min(linear, default=0)}.attn.g_norm.norm.weight", (0,))
        if not size or width % size or shared % size or width % shared or size % 2:
            raise SlmcError(f"attn.g_norm has width {size}, which does not divide {width} queries and {shared} keys")
        heads, groups = width // size, shared // size
        sizes = {"vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": layers}
        sizes |= {"intermediate_size": hidden, "num_attention_heads": heads, "num_key_value_heads": groups}
        said = TABLE.values(config, sizes)
        attention = tuple(range(1, layers, 2)) if said["attention"] is None else said["attention"]
        if not attention or set(attention) != set(range(layers)) - linear:
            raise SlmcError(
                f"config.json: attn_layers is {list(attention)}, but the weights have gates in layers {sorted(linear)}"
            )
        low_rank = f"layers.{min(linear)}.attn.gk_proj.0.weight"
        scales = shapes.get("layers.0.attn.q_proj.scales")
        return SpikingBrainConfig(
            layers=layers, hidden_size=width, intermediate_size=hidden, vocabulary=vocabulary, heads=heads,
            groups=groups, attention=tuple(sorted(attention)), context=context_for(options, said["context"]),
            gate_rank=matrix(shapes, low_rank)[0] if low_rank in shapes else None, window=said["window"],
            theta=float(said["theta"]), epsilon=said["epsilon"],
            weight_group=None if scales is None else width // scales[1],
        )  # fmt: skip

    def build(self, shapes: Shapes, config: Config, options: ModelOptions) -> nn.Module:
        sizes = self.config(shapes, config, options)
        with torch.device("meta"):
            return SpikingBrain(sizes)

    def tree(self, model: nn.Module) -> ModelTree:
        assert isinstance(model, SpikingBrain)
        tree, spiking = super().tree(model), model.config.weight_group is not None
        constants = model.get_buffer("frequencies").numel() if spiking else 0
        counted = {path for path, module in model.named_modules() if isinstance(module, GroupedLinear)}
        blocks = (
            Block(b.path, tuple(dataclasses.replace(x, counts=x.path in counted) for x in b.layers))
            for b in tree.blocks
        )
        vectors = tree.vector_params + constants
        return dataclasses.replace(tree, blocks=tuple(blocks), vector_params=vectors, spikes=spiking)
