"""RWKV-7 "Goose" (arXiv 2503.14456) in the layout of the official checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from exporters.ops.channels import delta_rule
from exporters.states import StateSpec
from toolchain.model.checkpoint import Checkpoint
from toolchain.model.config import count_layers, matrix, without_wrappers
from toolchain.model.decoder_tensors import Heads, Part, apart, transposed
from toolchain.model.family import ModelOptions, Shapes
from toolchain.model.options import Config, Option, OptionTable, one_of
from toolchain.model.table_family import TableFamily

STATES_PER_BLOCK = ("att_shift", "att_state", "ffn_shift")
"""What one block carries from token to token."""

SLOWEST_DECAY = -0.606531
"""A decay is at least e^this: -e^-0.5 (section 4)."""

HEAD_EPSILON = 64e-5
"""Of the norm of every head."""

LOW_RANK = ("w", "a", "v", "g")
"""Vectors that come from two thin matrices: decay, rate of replacement, mix with the first layer's values, gate."""

TABLE = OptionTable(
    {"tied": Option(("tie_word_embeddings",), one_of(False), False)},
    sizes=frozenset({"vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "head_dim"}),
)
"""What a config.json says; sizes come from the tensors. There are no places, so that no length is too long."""


@dataclass(frozen=True)
class Rwkv7Config:
    """Sizes. ranks: of the thin matrices, by LOW_RANK."""

    layers: int
    hidden_size: int
    intermediate_size: int
    vocabulary: int
    heads: int
    ranks: Mapping[str, int]


def shifted(x: Tensor, before: Tensor) -> Tensor:
    """x [batch, time, size] less by one token, the first of which is `before` [batch, size]."""
    return torch.cat([before.unsqueeze(1), x], 1)[:, :-1]


class TimeMix(nn.Module):
    """The token mixer: a state [width, width] of every head, by the generalised delta rule."""

    w0: Tensor
    a0: Tensor
    v0: Tensor
    k_k: Tensor
    k_a: Tensor
    w1: nn.Linear
    w2: nn.Linear
    a1: nn.Linear
    a2: nn.Linear
    v1: nn.Linear
    v2: nn.Linear
    g1: nn.Linear
    g2: nn.Linear

    def __init__(self, config: Rwkv7Config, index: int) -> None:
        super().__init__()
        size, heads = config.hidden_size, config.heads
        self.heads, self.first = heads, index == 0
        vectors = ["x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "w0", "a0", "k_k", "k_a", *(["v0"] if index else [])]
        for name in vectors:
            setattr(self, name, nn.Parameter(torch.zeros(1, 1, size)))
        self.r_k = nn.Parameter(torch.zeros(heads, size // heads))
        for name in LOW_RANK:
            if name != "v" or index:
                rank = config.ranks[name]
                setattr(self, f"{name}1", nn.Linear(size, rank, bias=False))
                setattr(self, f"{name}2", nn.Linear(rank, size, bias=False))
        self.receptance, self.key, self.value, self.output = (nn.Linear(size, size, bias=False) for _ in range(4))
        self.ln_x = nn.GroupNorm(heads, size, HEAD_EPSILON)

    def forward(
        self, x: Tensor, first_value: Tensor | None, shift: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x [batch, time, size]; the mixed tokens, the first layer's values, and the states after."""
        change = shifted(x, shift) - x
        xr, xw, xk, xv, xa, xg = (x + change * getattr(self, f"x_{n}") for n in "rwkvag")
        r, k, v = self.receptance(xr), self.key(xk), self.value(xv)
        decay = torch.exp(SLOWEST_DECAY * torch.sigmoid(self.w0 + self.w2(torch.tanh(self.w1(xw)))))
        rate = torch.sigmoid(self.a0 + self.a2(self.a1(xa)))
        gate = self.g2(torch.sigmoid(self.g1(xg)))
        if first_value is None:
            first_value = v
        else:
            v = v + (first_value - v) * torch.sigmoid(self.v0 + self.v2(self.v1(xv)))
        removed = self.unit(k * self.k_k)
        k = k * (1 + (rate - 1) * self.k_a)
        y, after = delta_rule(r, decay, k, v, -removed, removed * rate, state)
        y = self.normed(y) + self.bonus(r, k, v)
        return self.output(y * gate), first_value, x[:, -1], after

    def by_head(self, x: Tensor) -> Tensor:
        """[batch, time, size] -> [batch, time, heads, width]."""
        return x.view(*x.shape[:2], self.heads, -1)

    def unit(self, x: Tensor) -> Tensor:
        """Every head's part of x with length 1."""
        heads = self.by_head(x)
        return (heads / torch.sqrt((heads * heads).sum(-1, keepdim=True) + 1e-24)).flatten(2)

    def normed(self, y: Tensor) -> Tensor:
        """A layer norm of every head's part, then one weight and bias per channel."""
        heads = self.by_head(y)
        centred = heads - heads.mean(-1, keepdim=True)
        plain = centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + self.ln_x.eps)
        return plain.flatten(2) * self.ln_x.weight + self.ln_x.bias

    def bonus(self, r: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What the present token adds by itself."""
        heads = self.by_head(r * k) * self.r_k
        return (heads.sum(-1, keepdim=True) * self.by_head(v)).flatten(2)


class ChannelMix(nn.Module):
    """value(relu(key(x mixed with the token before))^2)."""

    def __init__(self, config: Rwkv7Config) -> None:
        super().__init__()
        self.x_k = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.key = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.value = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        above = torch.relu(self.key(x + (shifted(x, shift) - x) * self.x_k))
        return self.value(above * above), x[:, -1]


class Block(nn.Module):
    """Time-mix and channel-mix, each on a normed copy of the residual and added to it."""

    def __init__(self, config: Rwkv7Config, index: int) -> None:
        super().__init__()
        if index == 0:
            self.ln0 = nn.LayerNorm(config.hidden_size)
        self.ln1, self.ln2 = nn.LayerNorm(config.hidden_size), nn.LayerNorm(config.hidden_size)
        self.att, self.ffn = TimeMix(config, index), ChannelMix(config)

    def forward(
        self, x: Tensor, first_value: Tensor | None, state: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        if hasattr(self, "ln0"):
            x = self.ln0(x)
        y, first_value, att_shift, att_state = self.att(self.ln1(x), first_value, state[0], state[1])
        x = x + y
        y, ffn_shift = self.ffn(self.ln2(x), state[2])
        return x + y, first_value, [att_shift, att_state, ffn_shift]


class Rwkv7(nn.Module):
    """Tokens and state in, logits and state out; parameters named as in the official checkpoints."""

    context: int | None = None

    def __init__(self, config: Rwkv7Config) -> None:
        super().__init__()
        self.config = config
        self.emb = nn.Embedding(config.vocabulary, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.layers))
        self.ln_out = nn.LayerNorm(config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocabulary, bias=False)

    def state_specs(self) -> list[StateSpec]:
        """Of every block the last tokens of both mixes, [hidden_size], and [heads, width, width]."""
        c = self.config
        width = c.hidden_size // c.heads
        shapes = {"att_state": (c.heads, width, width)}
        return [
            StateSpec(f"blocks.{i}.{name}", shapes.get(name, (c.hidden_size,)))
            for i in range(c.layers)
            for name in STATES_PER_BLOCK
        ]

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        """The states before the first token, each [batch, *shape]."""
        return [torch.zeros((batch, *s.shape)) for s in self.state_specs()]

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens [batch, time] -> logits [batch, time, vocabulary] and the state after the last token."""
        x, after, first_value, count = self.emb(tokens), [], None, len(STATES_PER_BLOCK)
        for i, block in enumerate(self.blocks):
            x, first_value, block_state = block(x, first_value, state[i * count : (i + 1) * count])
            after += block_state
        return self.head(self.ln_out(x)), after


_UNUSED = re.compile(r"^blocks\.0\.att\.v[012]$")
"""The first layer's values are those that others mix with."""


def conformed(checkpoint: Checkpoint) -> Checkpoint:
    """Thin matrices as [outputs, inputs], of checkpoints that have any; all others as they are."""
    if not any(name.endswith("blocks.0.att.r_k") for name in checkpoint.tensors):
        return checkpoint
    return apart(checkpoint, Part(r"(.*\.att\.[wavg][12])", (r"\1.weight",), transposed), Heads(1, 1))


class Rwkv7Family(TableFamily):
    """RWKV-7 checkpoints (RWKV-x070), whose thin matrices are stored as [inputs, outputs]; see `conformed`."""

    name = "rwkv7"
    model_types = ("rwkv7",)
    options = TABLE
    tensors = frozenset({"emb.weight", "blocks.0.att.r_k", "blocks.0.att.w1.weight", "blocks.0.ffn.x_k"})
    blocks, head = "blocks", "head"

    def rename(self, name: str) -> str | None:
        name = without_wrappers(name)
        return None if _UNUSED.match(name.removesuffix(".weight")) else name

    def build(self, shapes: Shapes, config: Config, options: ModelOptions) -> nn.Module:
        vocabulary, size = matrix(shapes, "emb.weight")
        hidden, _ = matrix(shapes, "blocks.0.ffn.key.weight")
        heads, width = matrix(shapes, "blocks.0.att.r_k")
        layers = count_layers(shapes, r"blocks\.([0-9]{1,6})\.", "blocks")
        if heads * width != size:
            raise SlmcError(f"blocks.0.att.r_k has {heads} heads of width {width}, but the weights are {size} wide")
        thin = [name for name in LOW_RANK if name != "v" or layers > 1]
        ranks = {name: matrix(shapes, f"blocks.{layers - 1}.att.{name}1.weight")[0] for name in thin}
        sizes = {"vocab_size": vocabulary, "hidden_size": size, "num_hidden_layers": layers}
        TABLE.values(config, sizes | {"intermediate_size": hidden, "head_dim": width})
        found = Rwkv7Config(
            layers=layers, hidden_size=size, intermediate_size=hidden, vocabulary=vocabulary, heads=heads, ranks=ranks
        )
        with torch.device("meta"):
            return Rwkv7(found)
