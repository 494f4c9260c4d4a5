"""The same model as slmc computes it: states in, states out, all tokens of a call at once; and how it is recognised."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from own_family.trained import KEPT, neuron
from toolchain.plugin import (
    Config,
    ModelOptions,
    OptionTable,
    Shapes,
    StateSpec,
    TableFamily,
    count_layers,
    delta_rule,
    matrix,
    neurons_of,
)

NEURONS = ("lif_query", "lif_key", "lif_value", "lif_mixed", "lif_up")
OF_NEURONS = (".beta", ".threshold", ".graded_spikes_factor", ".reset_mechanism_val", ".mem")
TABLE = OptionTable({}, sizes=frozenset({"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"}))


class Block(nn.Module):
    """The block of `trained.py`, its neurons mapped to slmc's."""

    def __init__(self, size: int, hidden: int, path: str) -> None:
        super().__init__()
        self.size = size
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.query, self.key, self.value = (nn.Linear(size, size, bias=False) for _ in range(3))
        self.out, self.up, self.down = (
            nn.Linear(size, size, bias=False),
            nn.Linear(size, hidden),
            nn.Linear(hidden, size),
        )
        for name in NEURONS:
            reset = "zero" if name == "lif_mixed" else "subtract"
            with torch.device("cpu"):  # constants are numbers, which a model without memory does not have
                setattr(self, name, neurons_of(neuron(reset), f"{path}.{name}"))

    def forward(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """x [batch, time, size]; the state as `state_specs` lists it."""
        y = self.norm1(x)
        q, of_q = self.lif_query(self.query(y), state[0])
        k, of_k = self.lif_key(self.key(y), state[1])
        v, of_v = self.lif_value(self.value(y), state[2])
        nothing = torch.zeros_like(k)
        mixed, matrix_after = delta_rule(q, nothing + KEPT, k, v, nothing, nothing, state[5])
        s, of_mixed = self.lif_mixed(mixed / self.size**0.5, state[3])
        x = x + self.out(s)
        s, of_up = self.lif_up(self.up(self.norm2(x)), state[4])
        return x + self.down(s), [of_q, of_k, of_v, of_mixed, of_up, matrix_after]


class OwnModel(nn.Module):
    """Tokens and state in, logits and state out; parameters named as in the checkpoint."""

    context: int | None = None

    def __init__(self, vocabulary: int, size: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.size, self.hidden = size, hidden
        self.embed = nn.Embedding(vocabulary, size)
        self.blocks = nn.ModuleList(Block(size, hidden, f"blocks.{i}") for i in range(layers))
        self.norm, self.head = nn.LayerNorm(size), nn.Linear(size, vocabulary, bias=False)

    def state_specs(self) -> list[StateSpec]:
        sizes = {name: (self.hidden if name == "lif_up" else self.size,) for name in NEURONS}
        shapes = sizes | {"matrix": (1, self.size, self.size)}
        return [StateSpec(f"blocks.{i}.{n}", shape) for i in range(len(self.blocks)) for n, shape in shapes.items()]

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        return [torch.zeros((batch, *spec.shape)) for spec in self.state_specs()]

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        x, after, count = self.embed(tokens), [], len(NEURONS) + 1
        for i, block in enumerate(self.blocks):
            x, of_block = block(x, state[i * count : (i + 1) * count])
            after += of_block
        return self.head(self.norm(x)), after


class OwnFamily(TableFamily):
    """Directories that `train.py` writes: `"model_type": "own-spiking-transformer"`."""

    name = "own-spiking-transformer"
    model_types = ("own-spiking-transformer",)
    options = TABLE
    tensors = frozenset({"embed.weight", "blocks.0.query.weight", "blocks.0.up.weight", "head.weight"})
    blocks, head = "blocks", "head"
    spikes = True

    def rename(self, name: str) -> str | None:
        """Constants of neurons are in `trained.py`; snnTorch stores them too."""
        return None if name.endswith(OF_NEURONS) else name

    def build(self, shapes: Shapes, config: Config, options: ModelOptions) -> nn.Module:
        vocabulary, size = matrix(shapes, "embed.weight")
        hidden, _ = matrix(shapes, "blocks.0.up.weight")
        layers = count_layers(shapes, r"blocks\.([0-9]{1,6})\.")
        sizes = {
            "vocab_size": vocabulary,
            "hidden_size": size,
            "intermediate_size": hidden,
            "num_hidden_layers": layers,
        }
        TABLE.values(config, sizes)
        with torch.device("meta"):
            return OwnModel(vocabulary, size, hidden, layers)
