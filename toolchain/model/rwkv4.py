"""RWKV-4 (arXiv 2305.13048) in the layout of the official checkpoints, and as Hugging Face saves it."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from toolchain.model.config import count_layers, matrix, without_wrappers
from toolchain.model.family import ModelOptions, Shapes
from toolchain.model.options import Config, Option, OptionTable, one_of
from toolchain.model.spikegpt import MixBlock, Recurrent, SpikeGptConfig
from toolchain.model.table_family import TableFamily

STATES_PER_BLOCK = ("att_shift", "wkv_numerator", "wkv_denominator", "wkv_exponent", "ffn_shift")
"""What one block carries from token to token, each [batch, hidden_size]."""

TABLE = OptionTable(
    {
        "epsilon": Option(("layer_norm_epsilon",), one_of(1e-5), 1e-5),
        "tied": Option(("tie_word_embeddings",), one_of(False), False),
    },
    frozenset({"num_hidden_layers", "hidden_size", "attention_hidden_size", "vocab_size", "intermediate_size"}),
    ignored=frozenset({"rescale_every", "context_length"}),
)
"""What a config.json says of an RWKV-4. Halving the residual keeps float16 in range and leaves the function; there are
no places, so that the length that it was trained on limits nothing."""

_HUGGING_FACE = (
    (re.compile(r"^rwkv\."), ""),
    (re.compile(r"^embeddings\."), "emb."),
    (re.compile(r"\.attention\."), ".att."),
    (re.compile(r"\.feed_forward\."), ".ffn."),
    (re.compile(r"\.time_mix_key$"), ".time_mix_k"),
    (re.compile(r"\.time_mix_value$"), ".time_mix_v"),
    (re.compile(r"\.time_mix_receptance$"), ".time_mix_r"),
    (re.compile(r"\.pre_ln\."), ".ln0."),
)
"""Hugging Face's names and the official ones."""


class Block(MixBlock):
    """Time-mix and channel-mix, each on a normalised copy of the residual and added to it."""

    def forward(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """x [batch, time, hidden_size]; the state in the order of STATES_PER_BLOCK."""
        if hasattr(self, "ln0"):
            x = self.ln0(x)
        branch, att_state = self.att(x, self.ln1, state[0], (state[1], state[2], state[3]))
        x = x + branch
        value, gate, ffn_shift = self.ffn(x, self.ln2, state[4])
        return x + torch.sigmoid(gate) * value, [*att_state, ffn_shift]


class Rwkv4(Recurrent):
    """RWKV-4 (Peng et al., arXiv 2305.13048)."""

    block = Block
    states = STATES_PER_BLOCK


class Rwkv4Family(TableFamily):
    """RWKV-4 checkpoints. Their tensors are SpikeGPT's, so that a config or the file's name must say what they are."""

    name = "rwkv"
    model_types = ("rwkv", "rwkv4")
    options = TABLE
    tensors = frozenset({"emb.weight", "blocks.0.att.time_decay", "blocks.0.ffn.key.weight"})
    blocks, head = "blocks", "head"

    def rename(self, name: str) -> str | None:
        name = without_wrappers(name)
        for pattern, official in _HUGGING_FACE:
            name = pattern.sub(official, name)
        return name

    def build(self, shapes: Shapes, config: Config, options: ModelOptions) -> nn.Module:
        vocabulary, hidden_size = matrix(shapes, "emb.weight")
        intermediate_size, _ = matrix(shapes, "blocks.0.ffn.key.weight")
        layers = count_layers(shapes, r"blocks\.([0-9]{1,6})\.")
        sizes = {"num_hidden_layers": layers, "hidden_size": hidden_size, "attention_hidden_size": hidden_size}
        TABLE.values(config, sizes | {"vocab_size": vocabulary, "intermediate_size": intermediate_size})
        with torch.device("meta"):
            return Rwkv4(SpikeGptConfig(layers, hidden_size, intermediate_size, vocabulary))
