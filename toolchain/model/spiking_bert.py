"""BERT with spikes before every linear layer, over several spike steps, as a classifier of whole sentences.

After SpikeLM (arXiv 2406.03287: ternary spikes, norms and softmax stay real) and SpikingBERT (arXiv 2308.10873: binary
spikes, soft reset). All values carry the S spike steps in front, [S, rows, channels] with rows the tokens of all texts,
so that a product sees one spike step of one token as a row of zeros and spikes; the mean over the steps is read out.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.artifact.errors import SlmcError
from exporters.states import StateSpec
from toolchain.model.cache import context_for
from toolchain.model.classifier import Classes, Classifier, classes_of
from toolchain.model.config import count_layers, matrix, without_wrappers
from toolchain.model.family import ModelOptions, Shapes
from toolchain.model.options import Config, Option, OptionTable, one_of, positive, whole
from toolchain.model.spiking import SPIKING_OPTIONS, Neurons, Spiking, check_spiking, spiking_options
from toolchain.model.table_family import TableFamily
from toolchain.model.tree import ModelTree, grown_tree

ACTIVATIONS = {"gelu": functional.gelu, "relu": torch.relu}

TABLE = OptionTable(
    {
        "heads": Option(("num_attention_heads",), whole),
        "activation": Option(("hidden_act",), one_of(*ACTIVATIONS), "gelu"),
        "epsilon": Option(("layer_norm_eps",), positive, 1e-12),
        **SPIKING_OPTIONS,
    },
    frozenset({"num_hidden_layers", "hidden_size", "vocab_size", "intermediate_size", "max_position_embeddings"}),
    ignored=frozenset({"type_vocab_size", "tie_word_embeddings"}),
)
"""What a config.json says of a BERT with spikes; segments are counted by the weights, and no head is tied."""


@dataclass(frozen=True)
class SpikingBertConfig:
    """Sizes and options. types: rows of the table of segments, of which the first is used; 0 without one. pooler: a
    dense layer with tanh before the classifier."""

    layers: int
    hidden_size: int
    intermediate_size: int
    vocabulary: int
    heads: int
    positions: int
    context: int
    spiking: Spiking
    types: int = 0
    pooler: bool = False
    activation: str = "gelu"
    epsilon: float = 1e-12


class SelfAttention(nn.Module):
    """Softmax attention of every token over all tokens of its text, spike step by spike step, of spikes q, k, v."""

    def __init__(self, config: SpikingBertConfig) -> None:
        super().__init__()
        self.heads, self.head_size = config.heads, config.hidden_size // config.heads
        self.spikes = Neurons(config.spiking)
        for name in ("query", "key", "value"):
            self.add_module(name, nn.Linear(config.hidden_size, config.hidden_size))
            self.add_module(f"{name}_spikes", Neurons(config.spiking))

    def forward(self, x: Tensor, texts: int) -> Tensor:
        spikes = self.spikes(x)
        q, k, v = (self._heads(self.get_submodule(f"{n}_spikes")(self.get_submodule(n)(spikes)), texts)
                   for n in ("query", "key", "value"))  # fmt: skip
        shares = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(self.head_size), -1)
        return (shares @ v).transpose(2, 3).reshape(x.shape)

    def _heads(self, x: Tensor, texts: int) -> Tensor:
        """[S, texts * time, heads * head_size] to [S, texts, heads, time, head_size]."""
        return x.reshape(x.shape[0], texts, -1, self.heads, self.head_size).transpose(2, 3)


class Added(nn.Module):
    """norm(residual + dense(spikes of x)): how both halves of a block end."""

    def __init__(self, config: SpikingBertConfig, inputs: int) -> None:
        super().__init__()
        self.spikes = Neurons(config.spiking)
        self.dense = nn.Linear(inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.epsilon)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        normed: Tensor = self.LayerNorm(residual + self.dense(self.spikes(x)))
        return normed


class Intermediate(nn.Module):
    """activation(dense(spikes of x))."""

    def __init__(self, config: SpikingBertConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.spikes = Neurons(config.spiking)
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.dense(self.spikes(x)))


class Block(nn.Module):
    """Attention, then an MLP, each added to the residual and normalised."""

    def __init__(self, config: SpikingBertConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(config), "output": Added(config, config.hidden_size)})
        self.intermediate = Intermediate(config)
        self.output = Added(config, config.intermediate_size)

    def forward(self, x: Tensor, texts: int) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, texts), x)
        y: Tensor = self.output(self.intermediate(x), x)
        return y


class Layers(nn.Module):
    """All blocks, one after the other."""

    def __init__(self, config: SpikingBertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Block(config) for _ in range(config.layers))

    def forward(self, x: Tensor, texts: int) -> Tensor:
        for block in self.layer:
            x = block(x, texts)
        return x


class Embeddings(nn.Module):
    """Token, place and, if the model has them, the first segment: their sum, normalised."""

    def __init__(self, config: SpikingBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocabulary, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.positions, config.hidden_size)
        if config.types:
            self.token_type_embeddings = nn.Embedding(config.types, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.epsilon)
        self.types = config.types

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.word_embeddings(tokens) + self.position_embeddings(places)
        if self.types:
            x = x + self.token_type_embeddings(torch.zeros_like(places))
        normed: Tensor = self.LayerNorm(x)
        return normed


class SpikingBert(nn.Module):
    """Tokens in, a vector per token out; nothing is carried. Named as Hugging Face names BERT, without `bert.`."""

    def __init__(self, config: SpikingBertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Layers(config)
        if config.pooler:
            self.pooler = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.hidden_size)})

    @property
    def context(self) -> int | None:
        """Tokens of the longest text: there are no places for more than `positions`."""
        return self.config.context

    def state_specs(self) -> list[StateSpec]:
        """None: a text is read in one call."""
        return []

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        return []

    def hidden(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens [batch, time], texts without padding -> their vectors [batch, time, hidden_size]."""
        x = self.embeddings(tokens).flatten(0, 1).expand(self.config.spiking.steps, -1, -1)
        x = self.encoder(x, tokens.shape[0])
        x = x.mean(0).view(*tokens.shape, -1)
        return (torch.tanh(self.pooler["dense"](x[:, :1])) if self.config.pooler else x), []


class SpikingBertClassifier(Classifier, SpikingBert):
    """Class scores of a whole text."""

    whole_texts = True

    def __init__(self, config: SpikingBertConfig, classes: Classes) -> None:
        SpikingBert.__init__(self, config)
        self.classify(classes, config.hidden_size)


class SpikingBertFamily(TableFamily):
    """Directories with BERT's tensors and a config.json that says how they spike."""

    name = "spiking-bert"
    model_types = ("spiking-bert", "bert")
    options = TABLE
    tensors = frozenset({"embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"})
    classifies = True

    def rename(self, name: str) -> str | None:
        name = re.sub(r"^(?:bert|encoder(?=\.encoder))\.", "", without_wrappers(name))
        if name.startswith(("cls.", "embeddings.position_ids")):
            return None
        return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")

    def config(self, shapes: Shapes, config: Config, options: ModelOptions) -> SpikingBertConfig:
        """Sizes from the tensors, and from the config what tensors do not show.

        Raises:
            SlmcError: the config contradicts the tensors, lacks something, or asks for what is not supported.
        """
        check_spiking(config)
        vocabulary, hidden_size = matrix(shapes, "embeddings.word_embeddings.weight")
        positions, _ = matrix(shapes, "embeddings.position_embeddings.weight")
        intermediate_size, _ = matrix(shapes, "encoder.layer.0.intermediate.dense.weight")
        segments = "embeddings.token_type_embeddings.weight"
        types = matrix(shapes, segments)[0] if segments in shapes else 0
        layers = count_layers(shapes, r"encoder\.layer\.([0-9]{1,6})\.")
        sizes = {"num_hidden_layers": layers, "hidden_size": hidden_size, "vocab_size": vocabulary}
        more = {"intermediate_size": intermediate_size, "max_position_embeddings": positions}
        values = TABLE.values(config, sizes | more)
        heads = values["heads"]
        if hidden_size % heads:
            raise SlmcError(f"config.json: {heads} heads cannot divide a hidden size of {hidden_size}")
        return SpikingBertConfig(
            layers, hidden_size, intermediate_size, vocabulary, heads, positions, context_for(options, positions),
            spiking_options(shapes, values), types, "pooler.dense.weight" in shapes, values["activation"],
            values["epsilon"],
        )  # fmt: skip

    def build(self, shapes: Shapes, config: Config, options: ModelOptions) -> nn.Module:
        classes = classes_of(shapes, config)
        if classes is None:
            raise SlmcError(
                "an encoder that reads in both directions and has no classifier.weight predicts nothing that slmc "
                "knows; give a model that was fine-tuned to classify"
            )
        sizes = self.config(shapes, config, options)
        if sizes.pooler and "pooling" in config and classes.pooling != "first":
            raise SlmcError(
                f"config.json: pooling is {classes.pooling!r}, but the weights have pooler.dense, which reads the "
                "first token; leave out one of them"
            )
        if sizes.pooler:
            classes = dataclasses.replace(classes, pooling="first")
        with torch.device("meta"):
            return SpikingBertClassifier(sizes, classes)

    def tree(self, model: nn.Module) -> ModelTree:
        assert isinstance(model, SpikingBertClassifier)
        tree = grown_tree(
            self.name, model, model.state_specs(), blocks="encoder.layer", head="classifier",
            positions=("embeddings.position_embeddings", "embeddings.token_type_embeddings"),
        )  # fmt: skip
        constants = sum(b.numel() for b in model.buffers())
        return dataclasses.replace(tree, vector_params=tree.vector_params + constants, spikes=True)
