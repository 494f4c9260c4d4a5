"""SpikingBrain-7B (arXiv 2509.05276) and its W8ASpike form: linear and windowed attention in turn.

Equations and names after the released inference code (BICLab/SpikingBrain-7B, MIT). W8ASpike multiplies whole numbers
of spikes, one threshold per token, with weights that are rounded in groups; the plain form has no spikes at all. The
product that ends an MLP is neither spiked nor rounded in either, as released.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.artifact.errors import SlmcError
from exporters.ops.channels import delta_rule
from exporters.states import StateSpec
from toolchain.model.cache import CachedModel, CacheShape, Rotation, Scores, attend, context_for
from toolchain.model.config import count_layers, matrix, without_wrappers
from toolchain.model.decoder_parts import HeadNorm
from toolchain.model.family import ModelOptions, Shapes
from toolchain.model.options import Config, Option, OptionTable, positive, whole
from toolchain.model.spike_counts import GroupedLinear, codes_of_8_bits, spikes
from toolchain.model.table_family import TableFamily
from toolchain.model.tree import ModelTree, grown_tree

GATE_NORMALIZER = 16.0
"""Gates are the 16th roots of sigmoids (gate_logit_normalizer)."""


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


@dataclass(frozen=True)
class SpikingBrainConfig:
    """Sizes and options.

    groups: heads of keys and values, and states of a linear layer. attention: numbers of the layers that have attention
    over a window; gate_rank: width between the two matrices of gates, None where it is one.
    window: an earlier token so far away is seen. weight_group: inputs that share a step of the weights, where those
    and spikes are rounded; None of the plain form.
    """

    layers: int
    hidden_size: int
    intermediate_size: int
    vocabulary: int
    heads: int
    groups: int
    attention: tuple[int, ...]
    context: int
    gate_rank: int | None
    window: int = 4096
    theta: float = 1000000.0
    epsilon: float = 1e-6
    weight_group: int | None = None

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.heads


def linear_of(config: SpikingBrainConfig, inputs: int, outputs: int, *, bias: bool = False) -> nn.Linear:
    """A product whose weights are rounded, if the form has such."""
    if config.weight_group is None:
        return nn.Linear(inputs, outputs, bias=bias)
    return GroupedLinear(inputs, outputs, bias, inputs // config.weight_group)


class Mixer(nn.Module):
    """The matrices that both kinds of attention have."""

    def __init__(self, config: SpikingBrainConfig) -> None:
        super().__init__()
        self.config = config
        size, shared = config.hidden_size, config.groups * config.head_size
        self.q_proj = linear_of(config, size, size, bias=True)
        self.k_proj, self.v_proj = (linear_of(config, size, shared, bias=True) for _ in "kv")
        self.o_proj = linear_of(config, size, size)

    def coded(self, x: Tensor) -> Tensor:
        """The inputs of a product."""
        return x if self.config.weight_group is None else spikes(x)


class LinearAttention(Mixer):
    """Gated linear attention (arXiv 2312.06635): states that decay row by row, one for the heads of a group."""

    def __init__(self, config: SpikingBrainConfig) -> None:
        super().__init__(config)
        size, shared, rank = config.hidden_size, config.groups * config.head_size, config.gate_rank
        if rank is None:
            self.gk_proj: nn.Module = linear_of(config, size, shared, bias=True)
        else:
            self.gk_proj = nn.Sequential(nn.Linear(size, rank, bias=False), nn.Linear(rank, shared))
        self.g_norm = HeadNorm("rms", config.head_size, config.epsilon, None)

    def forward(self, x: Tensor, state: list[Tensor], position: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.coded(x)
        query = torch.relu(self.q_proj(x)) * self.config.head_size**-0.5
        key, value, gate = torch.relu(self.k_proj(x)), self.v_proj(x), self.gk_proj(x)
        # -log sigmoid(g), of which no exponential overflows
        kept = torch.exp((torch.relu(-gate) + torch.log(1 + torch.exp(-gate.abs()))) * (-1 / GATE_NORMALIZER))
        nothing = key * 0.0
        y, after = delta_rule(query, kept, key, value, nothing, nothing, state[0])
        return self.o_proj(self.coded(self.g_norm(y))), [after]


class WindowAttention(Mixer):
    """Attention over the tokens of a window; in the spiking form queries are spikes, keys and values of 8 bits."""

    def forward(self, x: Tensor, state: list[Tensor], position: Tensor) -> tuple[Tensor, list[Tensor]]:
        c, x = self.config, self.coded(x)
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        rotation = Rotation(c.theta)
        if c.weight_group is not None:
            tables, rotation = self.turns(position, x.shape[1]), Rotation()
            q, k = (self.turned(y, tables) for y in (q, k))
            q, k, v = spikes(q).flatten(2), codes_of_8_bits(k).flatten(2), codes_of_8_bits(self.by_head(v)).flatten(2)
        scores = Scores(window=c.window + 1 if c.window + 1 < c.context else 0)
        y, after = attend(q, k, v, state, position, c.heads, rotation, scores)
        return self.o_proj(self.coded(y)), after

    def by_head(self, x: Tensor) -> Tensor:
        """[batch, time, heads * size] -> [batch, time, heads, size]."""
        return x.view(*x.shape[:2], -1, self.config.head_size)

    def turns(self, position: Tensor, time: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of rotary positions, [batch, time, 1, size / 2]."""
        size = self.config.head_size
        inverse = 1.0 / self.config.theta ** (torch.arange(0, size, 2).float() / size)
        angles = ((position + torch.arange(time))[..., None].float() * inverse)[:, :, None]
        return angles.cos(), angles.sin()

    def turned(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """Heads of x with pairs (x[i], x[i + size / 2]) turned."""
        cos, sin = tables
        half = self.config.head_size // 2
        heads = self.by_head(x)
        first, second = heads[..., :half], heads[..., half:]
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Mlp(nn.Module):
    """down(silu(gate(x)) * up(x)); what ends it is plain in either form."""

    def __init__(self, config: SpikingBrainConfig) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (
            linear_of(config, config.hidden_size, config.intermediate_size) for _ in range(2)
        )
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.spiking = config.weight_group is not None

    def forward(self, x: Tensor) -> Tensor:
        x = spikes(x) if self.spiking else x
        y: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class Block(nn.Module):
    """One kind of attention and an MLP, each on a normed copy of the residual and added to it."""

    def __init__(self, config: SpikingBrainConfig, index: int) -> None:
        super().__init__()
        self.attn_norm, self.mlp_norm = (nn.RMSNorm(config.hidden_size, eps=config.epsilon) for _ in range(2))
        self.attn = WindowAttention(config) if index in config.attention else LinearAttention(config)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, state: list[Tensor], position: Tensor) -> tuple[Tensor, list[Tensor]]:
        y, after = self.attn(self.attn_norm(x), state, position)
        x = x + y
        return x + self.mlp(self.mlp_norm(x)), after


class SpikingBrain(CachedModel):
    """Tokens and state in, logits and state out; parameters named as in the released checkpoints, without `model.`."""

    def __init__(self, config: SpikingBrainConfig) -> None:
        super().__init__(CacheShape(len(config.attention), config.groups, config.context, config.head_size))
        self.config = config
        self.embeddings = nn.Embedding(config.vocabulary, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.epsilon)
        self.lm_head = nn.Linear(config.hidden_size, config.vocabulary, bias=False)

    def state_specs(self) -> list[StateSpec]:
        """The number of tokens read, the caches of the layers with attention, then states [groups, size, size]."""
        c, (position, *caches) = self.config, super().state_specs()
        each = len(caches) // len(c.attention)
        named = [
            dataclasses.replace(s, name=f"layers.{c.attention[i // each]}.{s.name.rpartition('.')[2]}")
            for i, s in enumerate(caches)
        ]
        shape = (c.groups, c.head_size, c.head_size)
        linear = [StateSpec(f"layers.{i}.state", shape) for i in range(c.layers) if i not in c.attention]
        return [position, *named, *linear]

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens [batch, time] -> logits [batch, time, vocabulary] and the state after the last token."""
        c, x, position = self.config, self.embeddings(tokens), state[0]
        first = len(state) - (c.layers - len(c.attention))
        caches, linear = iter(self.per_layer(state[:first])), iter(state[first:])
        new_caches: list[Tensor] = []
        new_linear: list[Tensor] = []
        for i, block in enumerate(self.layers):
            attends = i in c.attention
            x, after = block(x, next(caches) if attends else [next(linear)], position)
            (new_caches if attends else new_linear).extend(after)
        return self.lm_head(self.norm(x)), [position + tokens.shape[1], *new_caches, *new_linear]


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
        tree = grown_tree(self.name, model, model.state_specs())
        return dataclasses.replace(tree, spikes=model.config.weight_group is not None)
