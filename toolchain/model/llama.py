"""Llama (arXiv 2302.13971) as Hugging Face saves it: grouped-query attention, rotary positions, SiLU-gated MLP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.errors import SlmcError
from toolchain.model.cache import CachedModel, CacheShape, Rotation, attend, context_for
from toolchain.model.config import Config, agree, count_layers, flag, matrix, number, only, whole, without_wrappers
from toolchain.model.family import ModelOptions, Shapes
from toolchain.model.text import UNUSED_ROWS
from toolchain.model.tree import ModelTree, grown_tree


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes and options. groups: heads of keys and values; tied: one matrix is embedding and head."""

    layers: int
    width: int
    hidden: int
    vocabulary: int
    heads: int
    groups: int
    head_width: int
    context: int
    theta: float = 10000.0
    epsilon: float = 1e-6
    attention_bias: bool = False
    mlp_bias: bool = False
    tied: bool = False


class Attention(nn.Module):
    """Heads that share keys and values in groups, with rotary positions."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        inner, shared, bias = config.heads * config.head_width, config.groups * config.head_width, config.attention_bias
        self.q_proj = nn.Linear(config.width, inner, bias=bias)
        self.k_proj = nn.Linear(config.width, shared, bias=bias)
        self.v_proj = nn.Linear(config.width, shared, bias=bias)
        self.o_proj = nn.Linear(inner, config.width, bias=bias)

    def forward(self, x: Tensor, caches: list[Tensor], position: Tensor) -> tuple[Tensor, list[Tensor]]:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        y, caches = attend(q, k, v, caches, position, self.config.heads, Rotation(self.config.theta))
        return self.o_proj(y), caches


class GatedMlp(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.hidden, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.width, config.hidden, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.hidden, config.width, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class Block(nn.Module):
    """Attention and MLP, each on a normalised copy of the residual and added to it."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.width, eps=config.epsilon)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.width, eps=config.epsilon)
        self.mlp = GatedMlp(config)

    def forward(self, x: Tensor, caches: list[Tensor], position: Tensor) -> tuple[Tensor, list[Tensor]]:
        drive, caches = self.self_attn(self.input_layernorm(x), caches, position)
        x = x + drive
        return x + self.mlp(self.post_attention_layernorm(x)), caches


class Llama(CachedModel):
    """Tokens and state in, logits and state out; parameters named as Hugging Face names them, without `model.`."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(CacheShape(config.layers, config.groups, config.context, config.head_width))
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=config.epsilon)
        self.lm_head = nn.Linear(config.width, config.vocabulary, bias=False)

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens [batch, time] -> logits [batch, time, vocabulary] and the state after the last token."""
        x, position, after = self.embed_tokens(tokens), state[0], []
        for block, caches in zip(self.layers, self.per_layer(state), strict=True):
            x, caches = block(x, caches, position)
            after += caches
        return self.lm_head(self.norm(x)), [position + tokens.shape[1], *after]


@dataclass(frozen=True)
class LlamaFamily:
    """Directories that Hugging Face transformers writes for LlamaForCausalLM."""

    name: str = "llama"
    unused_rows: int = UNUSED_ROWS

    def rename(self, name: str) -> str | None:
        return None if name.endswith("rotary_emb.inv_freq") else without_wrappers(name)

    def recognises(self, shapes: Shapes, config: Config) -> bool:
        named = config.get("model_type", self.name)
        return named == self.name and {"embed_tokens.weight", "layers.0.mlp.gate_proj.weight"} <= set(shapes)

    def config(self, shapes: Shapes, config: Config, options: ModelOptions) -> LlamaConfig:
        """Sizes from the tensors, and from the config what tensors do not show.

        Raises:
            SlmcError: the config contradicts the tensors, lacks something, or asks for what is not supported.
        """
        _refuse_unsupported(config)
        vocabulary, width = matrix(shapes, "embed_tokens.weight")
        hidden, _ = matrix(shapes, "layers.0.mlp.gate_proj.weight")
        inner, _ = matrix(shapes, "layers.0.self_attn.q_proj.weight")
        shared, _ = matrix(shapes, "layers.0.self_attn.k_proj.weight")
        layers = count_layers(shapes, r"layers\.([0-9]{1,6})\.")
        sizes = (("num_hidden_layers", layers), ("hidden_size", width), ("vocab_size", vocabulary))
        for key, size in (*sizes, ("intermediate_size", hidden)):
            agree(config, key, size)
        heads = whole(config, "num_attention_heads")
        groups = whole(config, "num_key_value_heads", heads)
        head_width = whole(config, "head_dim", inner // heads) if config.get("head_dim") else inner // heads
        if heads * head_width != inner or groups * head_width != shared or heads % groups or head_width % 2:
            raise SlmcError(
                f"config.json: {heads} heads in {groups} groups of width {head_width} do not fit the weights, "
                f"{inner} query and {shared} key rows"
            )
        return LlamaConfig(
            layers, width, hidden, vocabulary, heads, groups, head_width,
            context_for(options, whole(config, "max_position_embeddings")), _theta(config),
            number(config, "rms_norm_eps", 1e-6), flag(config, "attention_bias", False),
            flag(config, "mlp_bias", False), flag(config, "tie_word_embeddings", "lm_head.weight" not in shapes),
        )  # fmt: skip

    def build(self, shapes: Shapes, config: Config, options: ModelOptions) -> nn.Module:
        with torch.device("meta"):
            return Llama(self.config(shapes, config, options))

    def tree(self, model: nn.Module) -> ModelTree:
        assert isinstance(model, Llama)
        return grown_tree(self.name, model, model.state_specs(), tied="embed_tokens" if model.config.tied else None)


def _refuse_unsupported(config: Config) -> None:
    only(config, "hidden_act", "silu", "swish")
    only(config, "rope_scaling", None)
    only(config, "sliding_window", None)
    only(config, "use_sliding_window", False)
    only(config, "pretraining_tp", 1, None)
    only(config, "partial_rotary_factor", 1.0, None)
    only(config, "quantization_config", None)
    rope: Any = config.get("rope_parameters")
    if isinstance(rope, dict) and rope.get("rope_type", "default") != "default":
        raise SlmcError(
            f"config.json: rope_parameters has rope_type {rope['rope_type']!r}, which is not supported; supported: "
            "'default'"
        )


def _theta(config: Config) -> float:
    """The base of the rotary positions, at either of the places where transformers writes it."""
    rope = config.get("rope_parameters")
    return float(number(rope if isinstance(rope, dict) else config, "rope_theta", 10000.0))
