"""NeuronSpark (arXiv 2603.16148): a state-space model of leaky neurons, K frames of which stand for a token.

Membranes, not spikes, are multiplied with matrices: a spike lowers its own membrane and goes nowhere. The recurrence
frame by frame is the definition; the released code's fallback without a GPU stops a fixed point iteration after three
rounds and is not it. Frames of a token begin alike, and every sub-layer adds one value per token to all of them, so
that the stream has no frames. The weights are Apache-2.0, the released code CC BY-NC-SA 4.0; equations are our own.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exporters.ops.channels import plif
from exporters.states import StateSpec
from toolchain.model.config import count_layers, matrix, without_wrappers
from toolchain.model.family import ModelOptions, Shapes
from toolchain.model.options import Config, Option, OptionTable, positive, whole
from toolchain.model.table_family import TableFamily
from toolchain.model.tree import ModelTree, grown_tree

STATES_PER_LAYER = ("input_neuron1", "hidden", "input_neuron2", "gate_neuron", "up_neuron")
"""Membranes that one layer carries from token to token."""

LIMIT = 3e38
"""Membranes are not clipped: so far they may go."""

HALT_LIMIT = 16.118
"""Logits of halting stay within it: probabilities within 1e-7 of 0 and 1."""

TABLE = OptionTable(
    {
        "frames": Option(("K",), whole, 16),
        "threshold": Option(("v_th_min",), positive, 0.1),
    },
    sizes=frozenset({"vocab_size", "D", "N", "num_layers", "D_ff"}),
    fixed={"tie_word_embeddings": (True, None)},
    ignored=frozenset({"hidden_size", "num_hidden_layers", "_tokens_seen", "_step"}),
)
"""What a config.json says. A state has no places, so that no length is too long."""


@dataclass(frozen=True)
class NeuronSparkConfig:
    """Sizes and options. expansion: hidden neurons per channel; frames: of a token; threshold: the least of a hidden
    neuron."""

    layers: int
    hidden_size: int
    expansion: int
    intermediate_size: int
    vocabulary: int
    frames: int = 16
    threshold: float = 0.1


class Plif(nn.Module):
    """Neurons with a decay and a threshold of their own and a soft reset; what they leak is their output."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(size))
        self.v_th = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        """x [batch, frames, size] -> (1 - b) V [batch, frames, size], and the membranes V after."""
        decay = torch.sigmoid(self.w)
        share = 1 - decay
        v, after = plif(x, decay, share, self.v_th, self.v_th, membrane, -LIMIT, LIMIT, 0.0, 1.0, 1.0)
        return share * v, after


class Halt(nn.Module):
    """The frames of a token as one value, by the probability to halt at each (PonderNet, arXiv 2107.05407)."""

    def __init__(self, size: int, frames: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, size))
        self.bias = nn.Parameter(torch.zeros(1))
        earlier = torch.ones(frames, frames, device="cpu").tril(-1)
        self.register_buffer("earlier", earlier, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, time, frames, size] -> [batch, time, size]."""
        logits = (x * self.weight).sum(-1, keepdim=True) + self.bias
        logits = torch.where(logits > HALT_LIMIT, HALT_LIMIT, logits)
        logits = torch.where(logits < -HALT_LIMIT, -HALT_LIMIT, logits)
        survived = torch.exp(self._before(-softplus(logits)))  # 1 - sigmoid(x) = exp(-softplus(x))
        shares = torch.sigmoid(logits) * survived
        return (shares / (shares.sum(2, keepdim=True) + 1e-8) * x).sum(2)

    def _before(self, x: Tensor) -> Tensor:
        """x [batch, time, frames, 1] -> the sum of the frames before each, of the same shape."""
        return (self.get_buffer("earlier") * x.transpose(2, 3)).sum(-1, keepdim=True)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), of large x too."""
    return torch.relu(x) + torch.log(1 + torch.exp(-magnitude(x)))


def magnitude(x: Tensor) -> Tensor:
    """|x|, as slmc-run computes it."""
    return torch.relu(x) + torch.relu(-x)


class SnnBlock(nn.Module):
    """Hidden neurons whose decay, gain and threshold depend on the input."""

    def __init__(self, config: NeuronSparkConfig) -> None:
        super().__init__()
        size, inner = config.hidden_size, config.hidden_size * config.expansion
        self.threshold = config.threshold
        self.W_in, self.W_beta_x, self.W_alpha_x, self.W_th_x = (nn.Linear(size, inner, bias=False) for _ in range(4))
        self.W_gate, self.W_skip = (nn.Linear(size, size, bias=False) for _ in range(2))
        self.W_out = nn.Linear(inner, size, bias=False)
        self.b_beta, self.b_alpha, self.b_th = (nn.Parameter(torch.zeros(inner)) for _ in range(3))

    def forward(self, m: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        """m [batch, frames, size]."""
        decay = torch.sigmoid(self.W_beta_x(m) + self.b_beta)
        gain = softplus(self.W_alpha_x(m) + self.b_alpha)
        threshold = self.threshold + magnitude(self.W_th_x(m) + self.b_th)
        u, after = plif(
            self.W_in(m), decay, gain, threshold, threshold, membrane, -LIMIT, LIMIT, 0.0, 1.0, 1.0
        )  # fmt: skip
        return self.W_out(u) * torch.sigmoid(self.W_gate(m)) + self.W_skip(m), after


class SnnFfn(nn.Module):
    """A gated MLP whose activations are what neurons leak."""

    def __init__(self, config: NeuronSparkConfig) -> None:
        super().__init__()
        size, hidden = config.hidden_size, config.intermediate_size
        self.gate_proj, self.up_proj = (nn.Linear(size, hidden, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(hidden, size, bias=False)
        self.skip_proj = nn.Linear(size, size, bias=False)
        self.gate_neuron, self.up_neuron = Plif(hidden), Plif(hidden)

    def forward(self, m: Tensor, gate_membrane: Tensor, up_membrane: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """m [batch, frames, size]."""
        gate, gate_after = self.gate_neuron(self.gate_proj(m), gate_membrane)
        up, up_after = self.up_neuron(self.up_proj(m), up_membrane)
        return self.down_proj(gate * up) + self.skip_proj(m), gate_after, up_after


class Layer(nn.Module):
    """Block and feed-forward part, each over the frames of a normed copy of the stream, brought together and added."""

    def __init__(self, config: NeuronSparkConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.frames = config.frames
        self.block_norm, self.ffn_norm = nn.RMSNorm(size, eps=1e-6), nn.RMSNorm(size, eps=1e-6)
        self.input_neuron1, self.input_neuron2 = Plif(size), Plif(size)
        self.snn_block, self.snn_ffn = SnnBlock(config), SnnFfn(config)
        self.block_out_proj, self.ffn_out_proj = (nn.Linear(size, size, bias=False) for _ in range(2))
        self.block_halt, self.ffn_halt = Halt(size, config.frames), Halt(size, config.frames)

    def forward(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """x [batch, time, size]; the state in the order of STATES_PER_LAYER."""
        m, first = self.input_neuron1(framed(self.block_norm(x), self.frames), state[0])
        f, hidden = self.snn_block(m, state[1])
        x = x + centred(self.block_out_proj(self.block_halt(by_token(f, self.frames))))
        m, second = self.input_neuron2(framed(self.ffn_norm(x), self.frames), state[2])
        f, gate, up = self.snn_ffn(m, state[3], state[4])
        x = x + centred(self.ffn_out_proj(self.ffn_halt(by_token(f, self.frames))))
        return x, [first, hidden, second, gate, up]


def framed(x: Tensor, frames: int) -> Tensor:
    """[batch, time, size] -> the same value for every frame, [batch, time * frames, size]."""
    return x.unsqueeze(2).expand(-1, -1, frames, -1).flatten(1, 2)


def by_token(x: Tensor, frames: int) -> Tensor:
    """[batch, time * frames, size] -> [batch, time, frames, size]."""
    return x.view(x.shape[0], -1, frames, x.shape[2])


def centred(x: Tensor) -> Tensor:
    """x less its mean over channels."""
    return x - x.mean(-1, keepdim=True)


class NeuronSpark(nn.Module):
    """Tokens and state in, logits and state out; parameters named as in the checkpoints, without `model.`."""

    context: int | None = None

    def __init__(self, config: NeuronSparkConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocabulary, size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.output_norm = nn.RMSNorm(size, eps=1e-6)
        self.output_neuron = Plif(size)
        self.decode_proj = nn.Linear(size, size)
        self.norm = nn.RMSNorm(size, eps=1e-6)
        self.lm_head = nn.Linear(size, config.vocabulary, bias=False)

    def state_specs(self) -> list[StateSpec]:
        """The membranes of every layer, then those of the output."""
        c = self.config
        inner = {"hidden": c.hidden_size * c.expansion} | dict.fromkeys(
            ("gate_neuron", "up_neuron"), c.intermediate_size
        )
        layers = (
            StateSpec(f"layers.{i}.{name}", (inner.get(name, c.hidden_size),))
            for i in range(c.layers)
            for name in STATES_PER_LAYER
        )
        return [*layers, StateSpec("output_neuron", (c.hidden_size,))]

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        """The states before the first token, each [batch, *shape]."""
        return [torch.zeros((batch, *s.shape)) for s in self.state_specs()]

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens [batch, time] -> logits [batch, time, vocabulary] and the state after the last token."""
        x, after, count = self.embed_tokens(tokens), [], len(STATES_PER_LAYER)
        for i, layer in enumerate(self.layers):
            x, layer_state = layer(x, state[i * count : (i + 1) * count])
            after += layer_state
        leaked, last = self.output_neuron(framed(self.output_norm(x), self.config.frames), state[-1])
        mean = by_token(leaked, self.config.frames).mean(2)
        return self.lm_head(self.norm(self.decode_proj(mean))), [*after, last]


class NeuronSparkFamily(TableFamily):
    """Directories as NeuronSpark-0.9B is released."""

    name = "neuronspark"
    model_types = ("neuronspark",)
    options = TABLE
    tensors = frozenset({"embed_tokens.weight", "layers.0.snn_block.W_beta_x.weight", "output_neuron.w"})

    def rename(self, name: str) -> str | None:
        return re.sub(r"^norm\.gain$", "norm.weight", without_wrappers(re.sub(r"^snn\.", "", name)))

    def build(self, shapes: Shapes, config: Config, options: ModelOptions) -> nn.Module:
        vocabulary, size = matrix(shapes, "embed_tokens.weight")
        inner, _ = matrix(shapes, "layers.0.snn_block.W_in.weight")
        hidden, _ = matrix(shapes, "layers.0.snn_ffn.gate_proj.weight")
        layers = count_layers(shapes, r"layers\.([0-9]{1,6})\.")
        sizes: Mapping[str, int] = {
            "vocab_size": vocabulary, "D": size, "N": inner // size, "num_layers": layers, "D_ff": hidden,
        }  # fmt: skip
        said = TABLE.values(config, sizes)
        found = NeuronSparkConfig(
            layers=layers, hidden_size=size, expansion=inner // size, intermediate_size=hidden, vocabulary=vocabulary,
            frames=said["frames"], threshold=float(said["threshold"]),
        )  # fmt: skip
        with torch.device("meta"):
            return NeuronSpark(found)

    def tree(self, model: nn.Module) -> ModelTree:
        assert isinstance(model, NeuronSpark)
        tree = grown_tree(self.name, model, model.state_specs(), tied="embed_tokens")
        # A graph holds decays and what they leave, and which frames come before which.
        constants = sum(b.numel() for b in model.buffers())
        constants += sum(m.w.numel() for m in model.modules() if isinstance(m, Plif))
        return dataclasses.replace(tree, vector_params=tree.vector_params + constants, spikes=True)
