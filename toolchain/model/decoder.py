"""One causal decoder for every model type of `decoder_types`: what differs between them is data, a `DecoderConfig`.

Modules have the names that Hugging Face gave to Llama's (arXiv 2302.13971), whatever a checkpoint calls them:
`input_layernorm` stands before attention and `post_attention_layernorm` before the MLP, or behind both parts where the
placement is 'after'; `attention_output_norm` and `mlp_output_norm` norm what a part adds to the residual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from toolchain.model.cache import CachedModel, CacheShape, Rotation, Scores, Turn, attend
from toolchain.model.classifier import Classes, Classifier
from toolchain.model.decoder_parts import ACTIVATIONS, HeadNorm, NormKind, norm_of
from toolchain.model.rotary import Rotary

HeadNorms = Literal["none", "shared", "each", "whole"]
"""Norms of queries and keys: none, one for all heads, one for each head, one over all channels of all heads."""


@dataclass(frozen=True)
class DecoderLayer:
    """What a layer has of its own. rotary: how its queries and keys are turned, None if they are not; window: tokens
    that a token sees, itself among them, 0 for all before it; scale: factor of its scores, 0 for 1 / sqrt(head_size).
    """

    rotary: Rotary | None = None
    window: int = 0
    scale: float = 0.0


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and options.

    embedding_size: width of the token table; intermediate_size: of the MLP; groups: heads of keys and values.
    context: tokens in the cache. positions: places in a table of learned positions, which has offset rows before them.
    placement: norms 'before' both parts (and one at the end, if last_norm), 'after' the residual was added, of a part's
    'output', or 'both' before and of the output.
    parallel: attention and MLP read the same residual; shared_norm: and the same norm of it.
    residual_scale: factor of what a part adds. attention_cap: scores become c tanh(score / c), 0 for none.
    logit_divisor: divides the logits; logit_cap: as for scores.
    tied: one matrix is embedding and head.
    """

    layers: tuple[DecoderLayer, ...]
    hidden_size: int
    intermediate_size: int
    vocabulary: int
    embedding_size: int
    heads: int
    groups: int
    head_size: int
    context: int
    epsilon: float = 1e-6
    norm: NormKind = "rms"
    placement: Literal["before", "after", "output", "both"] = "before"
    last_norm: bool = True
    head_norms: HeadNorms = "none"
    parallel: bool = False
    shared_norm: bool = False
    gated: bool = True
    activation: str = "silu"
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    positions: int = 0
    offset: int = 0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_divisor: float = 1.0
    logit_cap: float = 0.0
    attention_cap: float = 0.0
    tied: bool = False


class Attention(nn.Module):
    """Heads that share keys and values in groups (arXiv 2305.13245)."""

    def __init__(self, config: DecoderConfig, layer: DecoderLayer) -> None:
        super().__init__()
        self.heads, self.scores = config.heads, Scores(layer.scale, config.attention_cap, layer.window)
        rotary = layer.rotary
        partial = rotary is not None and rotary.channels < config.head_size
        self.rotation = Rotation() if rotary is None else Rotation(rotary.theta, rotary.channels if partial else 0)
        inner, shared = config.heads * config.head_size, config.groups * config.head_size
        self.q_proj = nn.Linear(config.hidden_size, inner, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, shared, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, shared, bias=config.qkv_bias)
        self.o_proj = nn.Linear(inner, config.hidden_size, bias=config.output_bias)
        self.normed = config.head_norms != "none"
        if config.head_norms == "whole":
            self.q_norm: nn.Module = norm_of(config.norm, inner, config.epsilon)
            self.k_norm: nn.Module = norm_of(config.norm, shared, config.epsilon)
        elif self.normed:
            each = config.head_norms == "each"
            self.q_norm = HeadNorm(config.norm, config.head_size, config.epsilon, config.heads if each else None)
            self.k_norm = HeadNorm(config.norm, config.head_size, config.epsilon, config.groups if each else None)

    def forward(
        self, x: Tensor, caches: list[Tensor], position: Tensor, turn: Turn | None
    ) -> tuple[Tensor, list[Tensor]]:
        """turn: of rotary positions that a base alone does not say; without it the attention turns by the base."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.normed:
            q, k = self.q_norm(q), self.k_norm(k)
        y, caches = attend(q, k, v, caches, position, self.heads, self.rotation, self.scores, turn)
        return self.o_proj(y), caches


class Mlp(nn.Module):
    """down(act(gate(x)) * up(x)) (arXiv 2002.05202), or down(act(up(x))) without a gate."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gated, self.act = config.gated, ACTIVATIONS[config.activation]
        if config.gated:
            self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.act(self.gate_proj(x)) * self.up_proj(x) if self.gated else self.act(self.up_proj(x))
        y: Tensor = self.down_proj(inner)
        return y


class Block(nn.Module):
    """Attention and MLP, each added to the residual."""

    def __init__(self, config: DecoderConfig, layer: DecoderLayer) -> None:
        super().__init__()
        self.config = config
        self.self_attn, self.mlp = Attention(config, layer), Mlp(config)
        names = ["input_layernorm", "post_attention_layernorm"] if config.placement != "output" else []
        names = names[:1] if config.shared_norm else names
        names += ["attention_output_norm", "mlp_output_norm"] if config.placement in ("output", "both") else []
        for name in names:
            self.add_module(name, norm_of(config.norm, config.hidden_size, config.epsilon))

    def forward(
        self, x: Tensor, caches: list[Tensor], position: Tensor, turn: Turn | None
    ) -> tuple[Tensor, list[Tensor]]:
        if self.config.parallel:
            normed = self._normed("input_layernorm", x, True)
            branch, caches = self.self_attn(normed, caches, position, turn)
            normed = self._normed("post_attention_layernorm", x, True) if not self.config.shared_norm else normed
            return self._added(self._added(x, branch), self.mlp(normed)), caches
        branch, caches = self.self_attn(self._before("input_layernorm", x), caches, position, turn)
        x = self._after("input_layernorm", self._added(x, self._output("attention_output_norm", branch)))
        branch = self.mlp(self._before("post_attention_layernorm", x))
        x = self._after("post_attention_layernorm", self._added(x, self._output("mlp_output_norm", branch)))
        return x, caches

    def _added(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + (branch if self.config.residual_scale == 1 else branch * self.config.residual_scale)

    def _before(self, name: str, x: Tensor) -> Tensor:
        return self._normed(name, x, self.config.placement in ("before", "both"))

    def _after(self, name: str, x: Tensor) -> Tensor:
        return self._normed(name, x, self.config.placement == "after")

    def _output(self, name: str, x: Tensor) -> Tensor:
        return self._normed(name, x, self.config.placement in ("output", "both"))

    def _normed(self, name: str, x: Tensor, here: bool) -> Tensor:
        y: Tensor = getattr(self, name)(x) if here else x
        return y


class Decoder(CachedModel):
    """Tokens and state in, logits and state out."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(CacheShape(len(config.layers), config.groups, config.context, config.head_size))
        self.config = config
        self.projected = config.embedding_size != config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocabulary, config.embedding_size)
        if config.positions:
            self.embed_positions = nn.Embedding(config.positions + config.offset, config.hidden_size)
        if self.projected:
            self.project_in = nn.Linear(config.embedding_size, config.hidden_size, bias=False)
            self.project_out = nn.Linear(config.hidden_size, config.embedding_size, bias=False)
        self.layers = nn.ModuleList(Block(config, layer) for layer in config.layers)
        if config.last_norm:
            self.norm = norm_of(config.norm, config.hidden_size, config.epsilon)
        self.lm_head = nn.Linear(config.embedding_size, config.vocabulary, bias=config.head_bias)
        rotaries = dict.fromkeys(layer.rotary for layer in config.layers)
        self.rotaries = [rotary for rotary in rotaries if rotary is not None and not rotary.plain]
        for i, rotary in enumerate(self.rotaries):
            frequencies = torch.tensor(rotary.frequencies, device="cpu")
            self.register_buffer(f"frequencies_{i}", frequencies, persistent=False)

    def turns(self, position: Tensor, time: int) -> dict[Rotary | None, Turn | None]:
        """Cosines and sines of every kind of rotary positions that a base alone does not say."""
        found: dict[Rotary | None, Turn | None] = {}
        places = (position + torch.arange(time))[..., None].float() if self.rotaries else position
        for i, rotary in enumerate(self.rotaries):
            angles = places * self.get_buffer(f"frequencies_{i}")
            found[rotary] = angles.cos() * rotary.magnitude, angles.sin() * rotary.magnitude
        return found

    def embedded(self, tokens: Tensor, position: Tensor) -> Tensor:
        """What the first layer reads, [batch, time, hidden_size]."""
        x: Tensor = self.embed_tokens(tokens)
        x = x if self.config.embedding_scale == 1 else x * self.config.embedding_scale
        x = self.project_in(x) if self.projected else x
        if self.config.positions:
            first = self.config.offset
            x = x + self.embed_positions(position + torch.arange(first, tokens.shape[1] + first))
        return x

    def hidden(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens [batch, time] -> what a head reads [batch, time, embedding_size], and the state after the last one."""
        position, after = state[0], []
        x = self.embedded(tokens, position)
        turns = self.turns(position, tokens.shape[1])
        for block, layer, caches in zip(self.layers, self.config.layers, self.per_layer(state), strict=True):
            x, caches = block(x, caches, position, turns.get(layer.rotary))
            after += caches
        x = self.norm(x) if self.config.last_norm else x
        x = self.project_out(x) if self.projected else x
        return x, [position + tokens.shape[1], *after]

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens [batch, time] -> logits [batch, time, vocabulary] and the state after the last token."""
        hidden, after = self.hidden(tokens, state)
        logits: Tensor = self.lm_head(hidden)
        logits = logits if self.config.logit_divisor == 1 else logits / self.config.logit_divisor
        cap = self.config.logit_cap
        return cap * torch.tanh(logits / cap) if cap else logits, after


class DecoderClassifier(Classifier, Decoder):
    """Class scores of a text by its last token, as Hugging Face's ...ForSequenceClassification give them."""

    def __init__(self, config: DecoderConfig, classes: Classes) -> None:
        Decoder.__init__(self, config)
        self.classify(classes, config.embedding_size, unused="lm_head")
