"""Llama (arXiv 2302.13971) as Hugging Face saves it: grouped-query attention, rotary positions, SiLU-gated MLP.

Mistral and Qwen2 are the same equation: their model types are rows of `TABLES`.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.artifact.errors import SlmcError
from toolchain.model.cache import CachedModel, CacheShape, Rotation, attend, context_for
from toolchain.model.classifier import Classes, Classifier, classes_of
from toolchain.model.config import count_layers, matrix, without_wrappers
from toolchain.model.family import ModelOptions, Shapes
from toolchain.model.llama_options import TABLES
from toolchain.model.options import Config, OptionTable
from toolchain.model.rotary import ScaledRotary, scaled_rotary
from toolchain.model.tree import ModelTree, grown_tree


@dataclass(frozen=True)
class LlamaConfig:
    """Sizes and options. groups: heads of keys and values; tied: one matrix is embedding and head; scaling: rotary
    frequencies where theta alone does not say them."""

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
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    tied: bool = False
    scaling: ScaledRotary | None = None


class Attention(nn.Module):
    """Heads that share keys and values in groups, with rotary positions."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        inner, shared, bias = config.heads * config.head_width, config.groups * config.head_width, config.qkv_bias
        self.q_proj = nn.Linear(config.width, inner, bias=bias)
        self.k_proj = nn.Linear(config.width, shared, bias=bias)
        self.v_proj = nn.Linear(config.width, shared, bias=bias)
        self.o_proj = nn.Linear(inner, config.width, bias=config.output_bias)

    def forward(
        self, x: Tensor, caches: list[Tensor], position: Tensor, turn: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, list[Tensor]]:
        """turn: cosines and sines of scaled rotary positions; without them the attention turns by theta itself."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        y, caches = attend(q, k, v, caches, position, self.config.heads, Rotation(self.config.theta), turn=turn)
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

    def forward(
        self, x: Tensor, caches: list[Tensor], position: Tensor, turn: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, list[Tensor]]:
        drive, caches = self.self_attn(self.input_layernorm(x), caches, position, turn)
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
        if config.scaling is not None:
            frequencies = torch.tensor(config.scaling.frequencies, device="cpu")
            self.register_buffer("frequencies", frequencies, persistent=False)

    def turn(self, position: Tensor, time: int) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines [batch, time, head_width / 2] of scaled rotary positions; None without scaling."""
        if self.config.scaling is None:
            return None
        places = (position + torch.arange(time))[..., None].float()
        angles = places * self.get_buffer("frequencies")
        magnitude = self.config.scaling.magnitude
        return angles.cos() * magnitude, angles.sin() * magnitude

    def hidden(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens [batch, time] -> what a head reads, [batch, time, width], and the state after the last token."""
        x, position, after = self.embed_tokens(tokens), state[0], []
        turn = self.turn(position, tokens.shape[1])
        for block, caches in zip(self.layers, self.per_layer(state), strict=True):
            x, caches = block(x, caches, position, turn)
            after += caches
        return self.norm(x), [position + tokens.shape[1], *after]

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens [batch, time] -> logits [batch, time, vocabulary] and the state after the last token."""
        hidden, after = self.hidden(tokens, state)
        return self.lm_head(hidden), after


class LlamaClassifier(Classifier, Llama):
    """Class scores of a text by its last token, as Hugging Face's LlamaForSequenceClassification gives them."""

    def __init__(self, config: LlamaConfig, classes: Classes) -> None:
        Llama.__init__(self, config)
        self.classify(classes, config.width, unused="lm_head")


@dataclass(frozen=True)
class LlamaFamily:
    """Directories that Hugging Face transformers writes for LlamaForCausalLM and the model types of `TABLES`."""

    name: str = "llama"
    model_types: tuple[str, ...] = tuple(TABLES)
    classifies: bool = True

    def rename(self, name: str) -> str | None:
        name = re.sub(r"^score\.", "classifier.", without_wrappers(name))
        return None if name.endswith("rotary_emb.inv_freq") else name

    def fits(self, shapes: Shapes) -> bool:
        return {"embed_tokens.weight", "layers.0.mlp.gate_proj.weight"} <= set(shapes)

    def table(self, config: Config) -> OptionTable:
        return TABLES[config.get("model_type", self.name)]

    def config(self, shapes: Shapes, config: Config, options: ModelOptions) -> LlamaConfig:
        """Sizes from the tensors, and from the config what tensors do not show.

        Raises:
            SlmcError: the config contradicts the tensors, lacks something, or asks for what is not supported.
        """
        vocabulary, width = matrix(shapes, "embed_tokens.weight")
        hidden, _ = matrix(shapes, "layers.0.mlp.gate_proj.weight")
        inner, _ = matrix(shapes, "layers.0.self_attn.q_proj.weight")
        shared, _ = matrix(shapes, "layers.0.self_attn.k_proj.weight")
        layers = count_layers(shapes, r"layers\.([0-9]{1,6})\.")
        sizes = {"num_hidden_layers": layers, "hidden_size": width, "vocab_size": vocabulary}
        said = self.table(config).values(config, sizes | {"intermediate_size": hidden})
        heads, groups = said["heads"], said["groups"]
        head_width = said["head_width"] or inner // heads
        if heads * head_width != inner or groups * head_width != shared or heads % groups or head_width % 2:
            raise SlmcError(
                f"config.json: {heads} heads in {groups} groups of width {head_width} do not fit the weights, "
                f"{inner} query and {shared} key rows"
            )
        trained = said["context"]
        window = said["window"] if said["use_window"] else None
        return LlamaConfig(
            layers, width, hidden, vocabulary, heads, groups, head_width,
            context_for(options, min(trained, window or trained)), float(said["theta"]), said["epsilon"],
            said["qkv_bias"], said["output_bias"], said["mlp_bias"],
            "lm_head.weight" not in shapes if said["tied"] is None else said["tied"],
            scaled_rotary(said, head_width, trained),
        )  # fmt: skip

    def build(self, shapes: Shapes, config: Config, options: ModelOptions) -> nn.Module:
        classes = classes_of(shapes, config, pooling="last")
        sizes = self.config(shapes, config, options)
        with torch.device("meta"):
            return LlamaClassifier(sizes, classes) if classes else Llama(sizes)

    def tree(self, model: nn.Module) -> ModelTree:
        assert isinstance(model, Llama)
        classifier = isinstance(model, Classifier)
        tied = "embed_tokens" if model.config.tied and not classifier else None
        head = "classifier" if classifier else "lm_head"
        tree = grown_tree(self.name, model, model.state_specs(), head=head, tied=tied)
        constants = sum(b.numel() for b in model.buffers())
        return dataclasses.replace(tree, vector_params=tree.vector_params + constants)
