"""SpikingBrain-7B (arXiv 2509.05276) and its W8ASpike form: linear and windowed attention in turn.

Equations and names after the released inference code (BICLab/SpikingBrain-7B, MIT). W8ASpike multiplies whole numbers
of spikes, one threshold per token, with weights that are rounded in groups; the plain form has no spikes at all. The
product that ends an MLP is neither spiked nor rounded in either, as released.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.ops.channels import delta_rule
from exporters.states import StateSpec
from toolchain.model.cache import CachedModel, CacheShape, Rotation, Scores, Turn, attend
from toolchain.model.decoder_parts import HeadNorm
from toolchain.model.spike_counts import GroupedLinear, codes_of_8_bits, spikes

GATE_NORMALIZER = 16.0
"""Gates are the 16th roots of sigmoids (gate_logit_normalizer)."""


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

    def forward(
        self, x: Tensor, state: list[Tensor], position: Tensor, turn: Turn | None
    ) -> tuple[Tensor, list[Tensor]]:
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

    def forward(
        self, x: Tensor, state: list[Tensor], position: Tensor, turn: Turn | None
    ) -> tuple[Tensor, list[Tensor]]:
        c, x = self.config, self.coded(x)
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        rotation = Rotation(c.theta)
        if turn is not None:
            rotation = Rotation()
            q, k = (self.turned(y, turn) for y in (q, k))
            q, k, v = spikes(q).flatten(2), codes_of_8_bits(k).flatten(2), codes_of_8_bits(self.by_head(v)).flatten(2)
        scores = Scores(window=c.window + 1 if c.window + 1 < c.context else 0)
        y, after = attend(q, k, v, state, position, c.heads, rotation, scores)
        return self.o_proj(self.coded(y)), after

    def by_head(self, x: Tensor) -> Tensor:
        """[batch, time, heads * size] -> [batch, time, heads, size]."""
        return x.view(*x.shape[:2], -1, self.config.head_size)

    def turned(self, x: Tensor, turn: Turn) -> Tensor:
        """Heads of x with pairs (x[i], x[i + size / 2]) turned."""
        cos, sin = turn
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

    def forward(
        self, x: Tensor, state: list[Tensor], position: Tensor, turn: Turn | None
    ) -> tuple[Tensor, list[Tensor]]:
        y, after = self.attn(self.attn_norm(x), state, position, turn)
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
        if config.weight_group is not None:
            channels = torch.arange(0, config.head_size, 2, dtype=torch.float32, device="cpu")
            frequencies = 1.0 / config.theta ** (channels / config.head_size)
            self.register_buffer("frequencies", frequencies, persistent=False)

    def turn(self, position: Tensor, time: int) -> Turn | None:
        """What turns queries and keys before they are coded; None: they are not, and attention itself turns them."""
        if self.config.weight_group is None:
            return None
        places = (position + torch.arange(time))[..., None].float()
        angles = (places * self.get_buffer("frequencies"))[:, :, None]
        return angles.cos(), angles.sin()

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
        turn = self.turn(position, tokens.shape[1])
        new_caches: list[Tensor] = []
        new_linear: list[Tensor] = []
        for i, block in enumerate(self.layers):
            attends = i in c.attention
            x, after = block(x, next(caches) if attends else [next(linear)], position, turn)
            (new_caches if attends else new_linear).extend(after)
        return self.lm_head(self.norm(x)), [position + tokens.shape[1], *new_caches, *new_linear]
