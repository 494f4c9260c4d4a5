"""SymbolicLight V1 (arXiv 2605.21333, 2606.03026) in the layouts of its two releases, 194 M and 874 M.

Equations and names after the released inference code (SymbolicLight-AGI/SymbolicLight-V1, Apache-2.0). The membranes of
the encoder are the only neurons with a state; spikes before `tcam_proj` and `ffn.down` are thresholds.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from exporters.ops.anchored import anchored_attention, anchored_attention_int8
from exporters.ops.channels import linear_recurrence, plif
from exporters.ops.recurrences import spike
from exporters.states import StateSpec
from toolchain.model.cache import KeyValueModel
from toolchain.model.config import count_layers, matrix, without_wrappers
from toolchain.model.family import ModelOptions, Shapes
from toolchain.model.options import Config, Option, OptionTable, between, positive, whole
from toolchain.model.table_family import TableFamily
from toolchain.model.tree import ModelTree

STATES_PER_BLOCK = {
    "fp32": ("decay", "keys", "values", "seen"),
    "int8": ("decay", "keys", "values", "seen", "key_scales", "value_scales"),
}
"""What one block carries from token to token, by how keys and values are kept: of the decay path, and the cache."""

CLIP = 3.0
"""The encoder's membranes stay within so much of zero."""

TABLE = OptionTable(
    {
        "threshold": Option(("spike_threshold",), positive, 1.0),
        "leak": Option(("leak_factor",), between(0, 1), 0.95),
        "theta": Option(("rope_theta",), positive, 10000.0),
        "window": Option(("sparse_attn_window",), whole, None),
        "anchors": Option(("n_global_anchors",), between(0, math.inf, int), 4),
    },
    sizes=frozenset({"vocab_size", "embed_dim", "n_layers", "n_heads", "head_dim", "intermediate_dim"}),
    fixed={
        "enable_sparse_attn": (True,), "enable_dynamic_prior": (True,), "enable_entropy_exit": (False,),
        "frontend_mode": ("text",),
    },
    ignored=frozenset({"max_seq_len", "spike_chunk_size", "entropy_exit_threshold"}),
    in_file=True,
)  # fmt: skip
"""What a config says of it, that of a checkpoint's file too. Places are rotary and the cache has constant size, so that
the length that it was trained on limits nothing."""


@dataclass(frozen=True)
class SymbolicLightConfig:
    """Sizes and options. window: an earlier token so far away is seen; prior: the weight of the prior's logits, None
    where the checkpoint has it."""

    layers: int
    hidden_size: int
    intermediate_size: int
    vocabulary: int
    heads: int
    bottleneck: int
    window: int
    anchors: int = 4
    threshold: float = 1.0
    leak: float = 0.95
    theta: float = 10000.0
    prior: float | None = None


class Frontend(nn.Module):
    """The table of tokens."""

    def __init__(self, config: SymbolicLightConfig) -> None:
        super().__init__()
        self.text_embedding = nn.Embedding(config.vocabulary, config.hidden_size)


class Encoder(nn.Module):
    """Normed embeddings, and the spikes of leaky neurons that they drive."""

    def __init__(self, config: SymbolicLightConfig) -> None:
        super().__init__()
        self.config = config
        self.frontend = Frontend(config)
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, tokens: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """tokens [batch, time] -> spikes and stream, each [batch, time, width], and the membranes after."""
        x = self.norm(self.frontend.text_embedding(tokens))
        leak, one, threshold = (torch.tensor(v) for v in (self.config.leak, 1.0, self.config.threshold))
        spikes, membrane = plif(x, leak, one, threshold, one, membrane, -CLIP, CLIP, 0.0, 0.0, 0.0)
        return spikes, x, membrane


class SparseAttention(nn.Module):
    """The matrices of attention over a window and the first tokens."""

    def __init__(self, config: SymbolicLightConfig) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Linear(config.hidden_size, config.hidden_size, bias=False) for _ in "qkv"
        )


class Tcam(nn.Module):
    """Two paths that a gate mixes: spikes looked up and averaged with a decay per head, attention over the stream."""

    def __init__(self, config: SymbolicLightConfig) -> None:
        super().__init__()
        self.config = config
        self.decay_raw = nn.Parameter(torch.zeros(config.heads))
        self.attn_gate = nn.Parameter(torch.zeros(1))
        self.tcam_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.sparse_attn = SparseAttention(config)

    def forward(self, spikes: Tensor, x: Tensor, state: list[Tensor], position: Tensor) -> tuple[Tensor, list[Tensor]]:
        """spikes, x [batch, time, width]; the state in an order of STATES_PER_BLOCK."""
        decay = torch.sigmoid(self.decay_raw).repeat_interleave(self.config.hidden_size // self.config.heads)
        averaged, after = linear_recurrence(decay, (1 - decay) * self.tcam_proj(spikes), state[0])
        present = (spikes.sum(-1) > 0).to(x.dtype)
        of = self.sparse_attn
        how = (self.config.heads, self.config.anchors, self.config.theta)
        attention = anchored_attention_int8 if state[1].dtype == torch.int8 else anchored_attention
        y, *cache = attention(of.q_proj(x), of.k_proj(x), of.v_proj(x), present, *state[1:], position, *how)
        gate = torch.sigmoid(self.attn_gate)
        return self.norm(x + self.out_proj(gate * y + (1 - gate) * averaged)), [after, *cache]


class FeedForward(nn.Module):
    """x + down([up(x) >= threshold]), normed."""

    def __init__(self, config: SymbolicLightConfig) -> None:
        super().__init__()
        self.threshold = config.threshold
        self.up = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x + self.down(spike(self.up(x) - self.threshold)))
        return y


class Block(nn.Module):
    """The two paths and the feed-forward part; the spikes of the next block are those of its end."""

    def __init__(self, config: SymbolicLightConfig) -> None:
        super().__init__()
        self.threshold = config.threshold
        self.tcam = Tcam(config)
        self.ffn = FeedForward(config)

    def forward(
        self, spikes: Tensor, x: Tensor, state: list[Tensor], position: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        x, after = self.tcam(spikes, x, state, position)
        x = self.ffn(x)
        return spike(x - self.threshold), x, after


class Head(nn.Module):
    """Logits of the stream, and those of a narrow network that is called a prior."""

    def __init__(self, config: SymbolicLightConfig) -> None:
        super().__init__()
        self.output_proj = nn.Linear(config.hidden_size, config.vocabulary, bias=False)
        self.prior_net = nn.Sequential(
            nn.Linear(config.hidden_size, config.bottleneck, bias=False),
            nn.GELU(),
            nn.Linear(config.bottleneck, config.vocabulary, bias=False),
        )
        self.prior = config.prior
        if config.prior is None:
            self.prior_weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.prior_weight if self.prior is None else self.prior
        y: Tensor = self.output_proj(x) + weight * self.prior_net(x)
        return y


class SymbolicLight(KeyValueModel):
    """Tokens and state in, logits and state out; parameters named as in the released checkpoints."""

    context: int | None = None
    cache_formats = tuple(STATES_PER_BLOCK)

    def __init__(self, config: SymbolicLightConfig) -> None:
        super().__init__()
        self.config = config
        self.spike_encoder = Encoder(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.output_head = Head(config)

    def state_specs(self) -> list[StateSpec]:
        """How many tokens were read, the encoder's membranes, and of every block STATES_PER_BLOCK."""
        c = self.config
        slots = c.anchors + c.window + 1
        kind = "int8" if self.kv_cache == "int8" else "float32"
        cache = ((c.heads, slots, c.hidden_size // c.heads), kind, True)
        scales = ((c.heads, slots), "float32", True)
        kept = {
            "decay": ((c.hidden_size,), "float32", False), "seen": ((slots,), "float32", False),
            "keys": cache, "values": cache, "key_scales": scales, "value_scales": scales,
        }  # fmt: skip
        first = [StateSpec("position", (1,), 0.0, "int64"), StateSpec("spike_encoder.membrane", (c.hidden_size,))]
        blocks = (
            StateSpec(f"blocks.{i}.{name}", kept[name][0], 0.0, kept[name][1], in_place=kept[name][2])
            for i in range(c.layers)
            for name in STATES_PER_BLOCK[self.kv_cache]
        )
        return [*first, *blocks]

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        """The states before the first token, each [batch, *shape]."""
        return [torch.zeros((batch, *s.shape), dtype=getattr(torch, s.dtype)) for s in self.state_specs()]

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens [batch, time] -> logits [batch, time, vocabulary] and the state after the last token."""
        position, count = state[0], (len(state) - 2) // self.config.layers
        spikes, x, membrane = self.spike_encoder(tokens, state[1])
        after = [position + tokens.shape[1], membrane]
        for i, block in enumerate(self.blocks):
            spikes, x, block_state = block(spikes, x, state[2 + i * count : 2 + (i + 1) * count], position)
            after += block_state
        return self.output_head(x), after


_TELLTALE = frozenset(
    {"spike_encoder.frontend.text_embedding.weight", "blocks.0.tcam.tcam_proj.weight", "blocks.0.ffn.up.weight"}
)
_UNUSED = ("rope.inv_freq", "_cached_mask")


class SymbolicLightFamily(TableFamily):
    """Checkpoints of SymbolicLight V1; their file holds the config too."""

    name = "symboliclight"
    model_types = ("symboliclight",)
    options = TABLE
    tensors = _TELLTALE
    blocks, head = "blocks", "output_head.output_proj"
    spikes = True

    def rename(self, name: str) -> str | None:
        name = without_wrappers(name).replace("_orig_mod.", "")
        return None if name.endswith(_UNUSED) or "v_mem" in name else name

    def config(self, shapes: Shapes, config: Config) -> SymbolicLightConfig:
        """Sizes from the tensors, options from the config where it has them.

        Raises:
            SlmcError: the config contradicts the tensors, or they lack a part.
        """
        vocabulary, width = matrix(shapes, "spike_encoder.frontend.text_embedding.weight")
        hidden, _ = matrix(shapes, "blocks.0.ffn.up.weight")
        bottleneck, _ = matrix(shapes, "output_head.prior_net.0.weight")
        layers = count_layers(shapes, r"blocks\.([0-9]{1,6})\.", "blocks")
        (heads,) = shapes.get("blocks.0.tcam.decay_raw", (0,))
        if not heads or width % (2 * heads):
            raise SlmcError(f"blocks.0.tcam.decay_raw gives {heads} heads, which do not divide {width} channels evenly")
        sizes = {"vocab_size": vocabulary, "embed_dim": width, "n_layers": layers, "n_heads": heads}
        said: dict[str, Any] = TABLE.values(config, sizes | {"head_dim": width // heads, "intermediate_dim": hidden})
        larger = "output_head.prior_weight" in shapes
        return SymbolicLightConfig(
            layers=layers, hidden_size=width, intermediate_size=hidden, vocabulary=vocabulary, heads=heads,
            bottleneck=bottleneck, window=said["window"] or (512 if larger else 256), anchors=said["anchors"],
            threshold=said["threshold"], leak=said["leak"], theta=float(said["theta"]), prior=None if larger else 0.1,
        )  # fmt: skip

    def build(self, shapes: Shapes, config: Config, options: ModelOptions) -> nn.Module:
        sizes = self.config(shapes, config)
        with torch.device("meta"):
            return SymbolicLight(sizes)

    def tree(self, model: nn.Module) -> ModelTree:
        assert isinstance(model, SymbolicLight)
        tree = super().tree(model)
        # A graph holds decays per channel and what they leave, and of a gate both sides.
        c = model.config
        constants = c.layers * (2 * c.hidden_size - c.heads + 1)
        return dataclasses.replace(tree, vector_params=tree.vector_params + constants, head="output_head")
