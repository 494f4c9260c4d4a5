"""Models small enough to be followed by hand: one that says a script, one of two tables, and a tiny SpikeGPT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from bigram import Bigram
from tokenizers import Tokenizer
from torch import Tensor, nn

from exporters.states import StateSpec
from toolchain.model.catalog import LoadedModel
from toolchain.model.spikegpt import SpikeGpt, SpikeGptConfig, SpikeGptFamily
from toolchain.model.tree import Block, Layer, ModelTree


class Scripted:
    """A LanguageModel that says row t of a table after token t, whatever it reads."""

    context: int | None = None

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.calls = logits, 0

    def state_specs(self) -> list[StateSpec]:
        return [StateSpec("position", (1,))]

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        return [torch.zeros(batch, 1)]

    def __call__(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        self.calls += 1
        start = int(state[0][0, 0])
        return self.logits[None, start : start + tokens.shape[1]], [state[0] + tokens.shape[1]]


def loaded(module: nn.Module, tree: ModelTree) -> LoadedModel:
    """A model in memory as load_model leaves it."""
    module.eval().requires_grad_(False)
    nowhere = Path("nowhere")
    return LoadedModel(module, tree, cast(Tokenizer, None), b"", nowhere, "tiny", "0" * 64)


@pytest.fixture
def scripted() -> Callable[[Tensor], Scripted]:
    return Scripted


@pytest.fixture
def bigram() -> LoadedModel:
    """Five tokens, width 3."""
    module = Bigram(5, 3)
    generator = torch.Generator().manual_seed(2)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    layers = Layer("emb", "embedding", 5, 3), Layer("head", "linear", 5, 3)
    return loaded(module, ModelTree("bigram", tuple(Block(layer.path, (layer,)) for layer in layers), 0, 0))


@pytest.fixture
def spiking() -> LoadedModel:
    """A SpikeGPT of two blocks whose neurons fire."""
    module = SpikeGpt(SpikeGptConfig(2, 8, 20, 13))
    generator = torch.Generator().manual_seed(3)
    for name, parameter in module.named_parameters():
        strength = 1.5 if name.endswith(("output.weight", "value.weight")) else 0.6
        parameter.data = strength * torch.randn(parameter.shape, generator=generator)
    return loaded(module, SpikeGptFamily().tree(module))


@pytest.fixture
def token_ids() -> Callable[[int, int], Tensor]:
    """So many random tokens of a vocabulary."""

    def make(n: int, vocabulary: int) -> Tensor:
        return torch.randint(0, vocabulary, (n,), generator=torch.Generator().manual_seed(4))

    return make
