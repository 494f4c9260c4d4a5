"""SpikeGPT as its authors trained it: RWKV-4 time-mix and channel-mix whose outputs spike into the residual."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exporters.ops.fusions import gated_spike_add, gated_wkv, shift_mix2, shift_mix3, spike_add, squared_relu
from exporters.ops.recurrences import spike
from exporters.states import StateSpec
from toolchain.model.classifier import Classes, Classifier, classes_of
from toolchain.model.config import count_layers, matrix
from toolchain.model.family import ModelOptions, Shapes
from toolchain.model.options import Config, Option, OptionTable, between, flag
from toolchain.model.table_family import TableFamily
from toolchain.model.tree import Block as TreeBlock
from toolchain.model.tree import Layer, ModelTree

STATES_PER_BLOCK = ("att_shift", "wkv_numerator", "wkv_denominator", "wkv_exponent", "att_membrane", "ffn_shift",
                    "ffn_membrane")  # fmt: skip
"""What one block carries from token to token, each [batch, hidden_size]."""

EXPONENT_START = -1e38
"""Initial running maximum of the WKV exponents: smaller than every exponent that occurs."""


@dataclass(frozen=True)
class SpikeGptConfig:
    """Sizes and options of a SpikeGPT.

    embed_binarize: the embedding passes a step function (the training graph does; the authors' RNN runner does not).
    rescale_every: halve the residual after every so many blocks, with att.output and ffn.value scaled to match, as
        the authors' RNN runner does; 0 is never, the training graph.
    dropout: of the residual after every block, in training only (the authors trained with 0.03).
    """

    layers: int
    hidden_size: int
    intermediate_size: int
    vocabulary: int
    embed_binarize: bool = True
    rescale_every: int = 0
    tau: float = 2.0
    threshold: float = 1.0
    reset: float = 0.0
    dropout: float = 0.0


class TimeMix(nn.Module):
    """Attention's place in RWKV-4: sigmoid(r) * wkv(k, v), projected."""

    def __init__(self, config: SpikeGptConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.time_decay = nn.Parameter(torch.zeros(size))
        self.time_first = nn.Parameter(torch.zeros(size))
        self.time_mix_k = nn.Parameter(torch.zeros(1, 1, size))
        self.time_mix_v = nn.Parameter(torch.zeros(1, 1, size))
        self.time_mix_r = nn.Parameter(torch.zeros(1, 1, size))
        self.key = nn.Linear(size, size, bias=False)
        self.value = nn.Linear(size, size, bias=False)
        self.receptance = nn.Linear(size, size, bias=False)
        self.output = nn.Linear(size, size, bias=False)

    def forward(
        self, x: Tensor, norm: nn.LayerNorm, shift: Tensor, sums: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """x [batch, time, hidden_size], to be normed; the current of the spikes, the shift and the three WKV states."""
        mixes = (self.time_mix_k, self.time_mix_v, self.time_mix_r)
        for_k, for_v, for_r, shift = shift_mix3(x, shift, norm.weight, norm.bias, *mixes, norm.eps)
        k, v, r = (y.to(x.dtype) for y in (self.key(for_k), self.value(for_v), self.receptance(for_r)))
        y, *sums_after = gated_wkv(-torch.exp(self.time_decay), self.time_first, k, v, r, *sums)
        return self.output(y), [shift, *sums_after]


class ChannelMix(nn.Module):
    """The feed-forward part of RWKV-4: sigmoid(r) * value(relu(key)^2)."""

    def __init__(self, config: SpikeGptConfig) -> None:
        super().__init__()
        self.time_mix_k = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.time_mix_r = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.key = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.receptance = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.value = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, norm: nn.LayerNorm, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [batch, time, hidden_size], to be normed; the spikes' current and its gate likewise, and the shift."""
        mixes = (self.time_mix_k, self.time_mix_r)
        for_k, for_r, shift = shift_mix2(x, shift, norm.weight, norm.bias, *mixes, norm.eps)
        return self.value(squared_relu(self.key(for_k))), self.receptance(for_r), shift


class MixBlock(nn.Module):
    """What blocks of SpikeGPT and RWKV-4 hold: a norm and a mix of tokens, a norm and a mix of channels."""

    def __init__(self, config: SpikeGptConfig, index: int) -> None:
        super().__init__()
        if index == 0:
            self.ln0 = nn.LayerNorm(config.hidden_size)
        self.ln1 = nn.LayerNorm(config.hidden_size)
        self.ln2 = nn.LayerNorm(config.hidden_size)
        self.att = TimeMix(config)
        self.ffn = ChannelMix(config)


class Block(MixBlock):
    """Two sub-blocks, each a LayerNorm, a mix, and LIF neurons whose spikes are added to the residual."""

    def __init__(self, config: SpikeGptConfig, index: int) -> None:
        super().__init__(config, index)
        self.config = config
        self.shrink = 2.0 ** -(index // config.rescale_every) if config.rescale_every else 1.0
        self.halve = bool(config.rescale_every) and (index + 1) % config.rescale_every == 0
        self.dropout = nn.Dropout(config.dropout)

    def driven(self, current: Tensor, membrane: Tensor) -> Tensor:
        """A sub-block's current [batch, time, hidden_size] as the neurons receive it."""
        current = current.to(membrane.dtype)
        return current * self.shrink if self.shrink != 1.0 else current

    def forward(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """x [batch, time, hidden_size]; the state in the order of STATES_PER_BLOCK."""
        neurons = (self.config.tau, self.config.threshold, self.config.reset)
        if hasattr(self, "ln0"):
            x = self.ln0(x)
        current, att_state = self.att(x, self.ln1, state[0], (state[1], state[2], state[3]))
        x, att_membrane = spike_add(x, self.driven(current, state[4]), state[4], *neurons)
        current, gate, ffn_shift = self.ffn(x, self.ln2, state[5])
        current, gate = self.driven(current, state[6]), gate.to(x.dtype)
        x, ffn_membrane = gated_spike_add(x, current, state[6], gate, *neurons)
        x = self.dropout(x)
        return x * 0.5 if self.halve else x, [*att_state, att_membrane, ffn_shift, ffn_membrane]


class Recurrent(nn.Module):
    """An embedding, blocks that carry states, and a head: tokens and states in, logits and states out.

    Parameters are named as in the released checkpoints.
    """

    context: int | None = None
    block: Callable[[SpikeGptConfig, int], nn.Module]
    states: tuple[str, ...]

    def __init__(self, config: SpikeGptConfig) -> None:
        super().__init__()
        self.config = config
        self.emb = nn.Embedding(config.vocabulary, config.hidden_size)
        self.blocks = nn.ModuleList(type(self).block(config, i) for i in range(config.layers))
        self.ln_out = nn.LayerNorm(config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocabulary, bias=False)

    def state_specs(self) -> list[StateSpec]:
        """Every carried state, in order, each [hidden_size]."""
        shape = (self.config.hidden_size,)
        return [
            StateSpec(f"blocks.{i}.{name}", shape, EXPONENT_START if name == "wkv_exponent" else 0.0)
            for i in range(self.config.layers)
            for name in self.states
        ]

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        """The state before the first token, each [batch, hidden_size]."""
        like = self.ln_out.weight
        return [like.new_full((batch, *s.shape), s.fill) for s in self.state_specs()]

    def embedded(self, tokens: Tensor) -> Tensor:
        """tokens [batch, time] -> what the first block reads, [batch, time, hidden_size]."""
        x: Tensor = self.emb(tokens)
        return x

    def hidden(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens [batch, time] -> what a head reads, [batch, time, hidden_size], and the state after the last token."""
        x, after, count = self.embedded(tokens), [], len(self.states)
        for i, block in enumerate(self.blocks):
            x, block_state = block(x, state[i * count : (i + 1) * count])
            after += block_state
        return self.ln_out(x), after

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens [batch, time] -> logits [batch, time, vocabulary] and the state after the last token."""
        hidden, after = self.hidden(tokens, state)
        return self.head(hidden), after


class SpikeGpt(Recurrent):
    """SpikeGPT (Zhu et al., arXiv 2302.13939)."""

    block = Block
    states = STATES_PER_BLOCK

    def embedded(self, tokens: Tensor) -> Tensor:
        x = super().embedded(tokens)
        return spike(x) if self.config.embed_binarize else x


class SpikeGptClassifier(Classifier, SpikeGpt):
    """SpikeGPT with class scores in the place of logits, as its authors fine-tune it."""

    def __init__(self, config: SpikeGptConfig, classes: Classes) -> None:
        super().__init__(config)
        self.classify(classes, config.hidden_size, unused="head")


_TELLTALE = ("emb.weight", "blocks.0.att.time_decay", "blocks.0.ffn.key.weight")
"""Tensors that every SpikeGPT has."""


TABLE = OptionTable(
    {
        "embed_binarize": Option(("embed_binarize",), flag, True),
        "rescale_every": Option(("rescale_every",), between(0, math.inf, int), 0),
        "tau": Option(("tau",), between(1, math.inf), 2.0),
        "threshold": Option(("threshold",), between(-math.inf, math.inf), 1.0),
        "reset": Option(("reset",), between(-math.inf, math.inf), 0.0),
        "dropout": Option(("dropout",), between(0, 1), 0.0),
    },
    frozenset({"layers", "width", "vocabulary", "hidden"}),
)
"""What a config.json says of a SpikeGPT; a membrane with tau below 1 would overshoot its current."""


class SpikeGptFamily(TableFamily):
    """SpikeGPT checkpoints as released: a flat state dict whose key names and shapes give every size."""

    name = "spikegpt"
    model_types = ("spikegpt",)
    options = TABLE
    tensors = frozenset(_TELLTALE)
    classifies = True

    def config(self, shapes: Shapes, config: Config) -> SpikeGptConfig:
        """Sizes from the tensors, options from the config where it has them.

        Raises:
            SlmcError: the config contradicts the tensors, or holds a value of the wrong kind.
        """
        vocabulary, hidden_size = matrix(shapes, "emb.weight")
        intermediate_size, _ = matrix(shapes, "blocks.0.ffn.key.weight")
        layers = count_layers(shapes, r"blocks\.([0-9]{1,6})\.", "blocks")
        sizes = {"layers": layers, "width": hidden_size, "vocabulary": vocabulary, "hidden": intermediate_size}
        return SpikeGptConfig(layers, hidden_size, intermediate_size, vocabulary, **TABLE.values(config, sizes))

    def build(self, shapes: Shapes, config: Config, options: ModelOptions) -> nn.Module:
        classes = classes_of(shapes, config)
        with torch.device("meta"):
            sizes = self.config(shapes, config)
            return SpikeGptClassifier(sizes, classes) if classes else SpikeGpt(sizes)

    def tree(self, model: nn.Module) -> ModelTree:
        assert isinstance(model, SpikeGpt)
        config = model.config
        embedding = Layer(
            "emb", "embedding", config.vocabulary, config.hidden_size, "sign" if config.embed_binarize else None
        )
        blocks = [TreeBlock("emb", (embedding,))]
        for i, block in enumerate(model.blocks):
            linears = [(f"blocks.{i}.{n}", m) for n, m in block.named_modules() if isinstance(m, nn.Linear)]
            layers = tuple(Layer(path, "linear", m.out_features, m.in_features) for path, m in linears)
            blocks.append(TreeBlock(f"blocks.{i}", layers))
        head = "classifier" if isinstance(model, Classifier) else "head"
        blocks.append(TreeBlock("head", (Layer(head, "linear", *model.get_parameter(f"{head}.weight").shape),)))
        vectors = sum(p.numel() for p in model.parameters() if p.ndim != 2)
        states = sum(s.values for s in model.state_specs())
        return ModelTree(self.name, tuple(blocks), vectors, states, spikes=True)
