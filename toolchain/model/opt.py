"""OPT (arXiv 2205.01068) as Hugging Face saves it: learned positions, biases, ReLU, LayerNorm before or after."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from toolchain.model.cache import CachedModel, CacheShape, Rotation, attend, context_for
from toolchain.model.classifier import Classes, Classifier, classes_of
from toolchain.model.config import count_layers, matrix, without_wrappers
from toolchain.model.family import ModelOptions, Shapes
from toolchain.model.options import Config, Option, OptionTable, flag, one_of, whole
from toolchain.model.tree import ModelTree, grown_tree

TABLE = OptionTable(
    {
        "heads": Option(("num_attention_heads",), whole),
        "norm_first": Option(("do_layer_norm_before",), flag, True),
        "no_last_norm": Option(("_remove_final_layer_norm",), flag, False),
        "bias": Option(("enable_bias",), flag, True),
        "tied": Option(("tie_word_embeddings",), flag, True),
        "activation": Option(("activation_function",), one_of("relu"), "relu"),
        "norm_weights": Option(("layer_norm_elementwise_affine",), one_of(True), True),
    },
    frozenset(
        {
            "num_hidden_layers", "hidden_size", "vocab_size", "ffn_dim", "word_embed_proj_dim",
            "max_position_embeddings",
        }
    ),
)  # fmt: skip
"""What a config.json says of an OPT."""

OFFSET = 2
"""Position p is looked up in row p + OFFSET, as the authors' padding left it."""


@dataclass(frozen=True)
class OptConfig:
    """Sizes and options. embedding: width of the token table; norm_first: LayerNorm before each part, not after it;
    last_norm: one more at the end; tied: one matrix is embedding and head."""

    layers: int
    width: int
    hidden: int
    vocabulary: int
    embedding: int
    heads: int
    positions: int
    context: int
    norm_first: bool = True
    last_norm: bool = True
    bias: bool = True
    tied: bool = True


class Attention(nn.Module):
    """Plain heads, each with keys and values of its own."""

    def __init__(self, config: OptConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.k_proj = nn.Linear(config.width, config.width, bias=config.bias)
        self.v_proj = nn.Linear(config.width, config.width, bias=config.bias)
        self.q_proj = nn.Linear(config.width, config.width, bias=config.bias)
        self.out_proj = nn.Linear(config.width, config.width, bias=config.bias)

    def forward(self, x: Tensor, caches: list[Tensor], position: Tensor) -> tuple[Tensor, list[Tensor]]:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        y, caches = attend(q, k, v, caches, position, self.heads, Rotation())
        return self.out_proj(y), caches


class Block(nn.Module):
    """Attention and a ReLU MLP, each added to the residual; normalised before, or (OPT-350m) after."""

    def __init__(self, config: OptConfig) -> None:
        super().__init__()
        self.norm_first = config.norm_first
        self.self_attn = Attention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.width)
        self.fc1 = nn.Linear(config.width, config.hidden, bias=config.bias)
        self.fc2 = nn.Linear(config.hidden, config.width, bias=config.bias)
        self.final_layer_norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, caches: list[Tensor], position: Tensor) -> tuple[Tensor, list[Tensor]]:
        if self.norm_first:
            drive, caches = self.self_attn(self.self_attn_layer_norm(x), caches, position)
            x = x + drive
            return x + self.fc2(torch.relu(self.fc1(self.final_layer_norm(x)))), caches
        drive, caches = self.self_attn(x, caches, position)
        x = self.self_attn_layer_norm(x + drive)
        return self.final_layer_norm(x + self.fc2(torch.relu(self.fc1(x)))), caches


class Opt(CachedModel):
    """Tokens and state in, logits and state out; named as Hugging Face names it, without `model.decoder.`."""

    def __init__(self, config: OptConfig) -> None:
        super().__init__(CacheShape(config.layers, config.heads, config.context, config.width // config.heads))
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocabulary, config.embedding)
        self.embed_positions = nn.Embedding(config.positions + OFFSET, config.width)
        if config.embedding != config.width:
            self.project_in = nn.Linear(config.embedding, config.width, bias=False)
            self.project_out = nn.Linear(config.width, config.embedding, bias=False)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        if config.last_norm:
            self.final_layer_norm = nn.LayerNorm(config.width)
        self.lm_head = nn.Linear(config.embedding, config.vocabulary, bias=False)

    def hidden(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens [batch, time] -> what a head reads, [batch, time, embedding], and the state after the last token."""
        projected = self.config.embedding != self.config.width
        x, position, after = self.embed_tokens(tokens), state[0], []
        x = self.project_in(x) if projected else x
        x = x + self.embed_positions(position + torch.arange(OFFSET, tokens.shape[1] + OFFSET))
        for block, caches in zip(self.layers, self.per_layer(state), strict=True):
            x, caches = block(x, caches, position)
            after += caches
        x = self.final_layer_norm(x) if self.config.last_norm else x
        x = self.project_out(x) if projected else x
        return x, [position + tokens.shape[1], *after]

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens [batch, time] -> logits [batch, time, vocabulary] and the state after the last token."""
        hidden, after = self.hidden(tokens, state)
        return self.lm_head(hidden), after


class OptClassifier(Classifier, Opt):
    """Class scores of a text by its last token, as Hugging Face's OPTForSequenceClassification gives them."""

    def __init__(self, config: OptConfig, classes: Classes) -> None:
        Opt.__init__(self, config)
        self.classify(classes, config.embedding, unused="lm_head")


@dataclass(frozen=True)
class OptFamily:
    """Directories that Hugging Face transformers writes for OPTForCausalLM."""

    name: str = "opt"
    model_types: tuple[str, ...] = ("opt",)
    classifies: bool = True

    def rename(self, name: str) -> str | None:
        return re.sub(r"^score\.", "classifier.", without_wrappers(name).removeprefix("decoder."))

    def fits(self, shapes: Shapes) -> bool:
        return {"embed_positions.weight", "layers.0.fc1.weight"} <= set(shapes)

    def table(self, config: Config) -> OptionTable:
        return TABLE

    def config(self, shapes: Shapes, config: Config, options: ModelOptions) -> OptConfig:
        """Sizes from the tensors, and from the config what tensors do not show.

        Raises:
            SlmcError: the config contradicts the tensors, lacks something, or asks for what is not supported.
        """
        vocabulary, embedding = matrix(shapes, "embed_tokens.weight")
        rows, width = matrix(shapes, "embed_positions.weight")
        hidden, _ = matrix(shapes, "layers.0.fc1.weight")
        layers = count_layers(shapes, r"layers\.([0-9]{1,6})\.")
        sizes = {"num_hidden_layers": layers, "hidden_size": width, "vocab_size": vocabulary, "ffn_dim": hidden}
        more = {"word_embed_proj_dim": embedding, "max_position_embeddings": rows - OFFSET}
        said = TABLE.values(config, sizes | more)
        heads = said["heads"]
        if width % heads:
            raise SlmcError(f"config.json: {heads} heads cannot divide a width of {width}")
        return OptConfig(
            layers, width, hidden, vocabulary, embedding, heads, rows - OFFSET, context_for(options, rows - OFFSET),
            said["norm_first"], said["norm_first"] and not said["no_last_norm"], said["bias"], said["tied"],
        )  # fmt: skip

    def build(self, shapes: Shapes, config: Config, options: ModelOptions) -> nn.Module:
        classes = classes_of(shapes, config, pooling="last")
        sizes = self.config(shapes, config, options)
        with torch.device("meta"):
            return OptClassifier(sizes, classes) if classes else Opt(sizes)

    def tree(self, model: nn.Module) -> ModelTree:
        assert isinstance(model, Opt)
        classifier = isinstance(model, Classifier)
        tied = "embed_tokens" if model.config.tied and not classifier else None
        head = "classifier" if classifier else "lm_head"
        return grown_tree(self.name, model, model.state_specs(), head=head, positions=("embed_positions",), tied=tied)
