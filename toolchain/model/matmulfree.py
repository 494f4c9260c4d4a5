"""MatMul-free language models (arXiv 2406.02528): HGRN (arXiv 2311.04823) whose matrices are ternary.

Checkpoints hold the weights that were trained; the model computes with them rounded to -a, 0 and a, a = mean |W|, and
with inputs of 8 bits, one step per token. The rounded weights are what is read here, and they are stored as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.formats.trits import TRITS, ternary
from exporters.ops.channels import linear_recurrence
from exporters.ops.ternary import rounded_tokens
from exporters.states import StateSpec
from toolchain.model.config import count_layers, matrix, without_wrappers
from toolchain.model.family import ModelOptions, Shapes
from toolchain.model.offloaded import Conformed
from toolchain.model.options import Config, Option, OptionTable, flag, positive
from toolchain.model.table_family import TableFamily
from toolchain.model.tree import Block as TreeBlock
from toolchain.model.tree import ModelTree, grown_tree

INNER_EPSILON = 1e-6
"""Of the norm before every ternary product; the released kernels take this one whatever the module says."""

TABLE = OptionTable(
    {
        "epsilon": Option(("rms_norm_eps",), positive, 1e-6),
        "lower_bound": Option(("use_lower_bound",), flag, True),
    },
    sizes=frozenset({"vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"}),
    fixed={"use_short_conv": (False,), "expand_ratio": (1,), "tie_word_embeddings": (False,)},
    ignored=frozenset(
        {
            "attn_mode", "num_heads", "conv_size", "share_conv_kernel", "hidden_ratio", "hidden_act", "fuse_norm",
            "max_position_embeddings", "fuse_cross_entropy",
        }
    ),
)  # fmt: skip
"""What a config.json says. The MLP takes silu whatever hidden_act says; heads only reshape; a state has no places."""


@dataclass(frozen=True)
class MatMulFreeConfig:
    """Sizes and options. ternary_head: whether the head is ternary and normed too."""

    layers: int
    hidden_size: int
    intermediate_size: int
    vocabulary: int
    ternary_head: bool = False
    lower_bound: bool = True
    epsilon: float = 1e-6


class TernaryLinear(Conformed, nn.Linear):
    """y = q(x) W^T with W ternary, and q the rounding of a token's inputs to 8 bits."""

    def conformed(self, weight: Tensor) -> Tensor:
        """The matrix that a checkpoint's stands for, float32."""
        scale, steps = ternary(weight.detach().to(torch.float32).numpy())
        return torch.from_numpy(steps).to(torch.float32) * float(scale)

    def prepared(self, x: Tensor) -> Tensor:
        return rounded_tokens(x)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(rounded_tokens(x), self.weight)


class BitLinear(nn.Module):
    """A norm and a ternary product."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(inputs, eps=INNER_EPSILON)
        self.linear = TernaryLinear(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(self.norm(x))
        return y


class Head(nn.Module):
    """Logits, by a ternary product behind a norm or by a plain one."""

    def __init__(self, config: MatMulFreeConfig) -> None:
        super().__init__()
        if config.ternary_head:
            self.norm = nn.RMSNorm(config.hidden_size, eps=INNER_EPSILON)
        kind = TernaryLinear if config.ternary_head else nn.Linear
        self.linear = kind(config.hidden_size, config.vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(self.norm(x) if hasattr(self, "norm") else x)
        return y


class Recurrence(nn.Module):
    """The token mixer: h = f h + (1 - f) silu(i), read through a gate."""

    def __init__(self, config: MatMulFreeConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.i_proj, self.f_proj, self.g_proj, self.o_proj = (BitLinear(size, size) for _ in "ifgo")
        self.g_norm = nn.RMSNorm(size, eps=config.epsilon)

    def forward(self, x: Tensor, bound: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """x [batch, time, size]; bound [size]: the least that a state keeps, None for nothing."""
        kept = torch.sigmoid(self.f_proj(x))
        if bound is not None:
            kept = bound + (1 - bound) * kept
        h, after = linear_recurrence(kept, functional.silu(self.i_proj(x)) * (1 - kept), state)
        return self.o_proj(self.g_norm(self.g_proj(x)) * functional.silu(h)), after


class GatedMlp(nn.Module):
    """down(silu(first half) * second half) of one ternary product."""

    def __init__(self, config: MatMulFreeConfig) -> None:
        super().__init__()
        self.gate_proj = BitLinear(config.hidden_size, 2 * config.intermediate_size)
        self.down_proj = BitLinear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.gate_proj(x).chunk(2, -1)
        y: Tensor = self.down_proj(functional.silu(gate) * value)
        return y


class Block(nn.Module):
    """Recurrence and MLP, each on a normalised copy of the residual and added to it."""

    def __init__(self, config: MatMulFreeConfig) -> None:
        super().__init__()
        self.attn_norm = nn.RMSNorm(config.hidden_size, eps=config.epsilon)
        self.attn = Recurrence(config)
        self.mlp_norm = nn.RMSNorm(config.hidden_size, eps=config.epsilon)
        self.mlp = GatedMlp(config)

    def forward(self, x: Tensor, bound: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        y, state = self.attn(self.attn_norm(x), bound, state)
        x = x + y
        return x + self.mlp(self.mlp_norm(x)), state


class MatMulFree(nn.Module):
    """Tokens and state in, logits and state out; parameters named as in the checkpoints, without `model.`."""

    context: int | None = None

    def __init__(self, config: MatMulFreeConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.Embedding(config.vocabulary, config.hidden_size)
        if config.lower_bound:
            self.lower_bounds = nn.Parameter(torch.zeros(config.layers, config.hidden_size))
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.epsilon)
        self.lm_head = Head(config)

    def state_specs(self) -> list[StateSpec]:
        """One state of every layer, [hidden_size]."""
        return [StateSpec(f"layers.{i}.attn.state", (self.config.hidden_size,)) for i in range(self.config.layers)]

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        """The states before the first token, each [batch, hidden_size]."""
        return [torch.zeros((batch, *s.shape)) for s in self.state_specs()]

    def bounds(self) -> list[Tensor | None]:
        """The least share that every layer's state keeps; the first one's is none."""
        if not self.config.lower_bound:
            return [None] * self.config.layers
        rising = torch.softmax(self.lower_bounds, 0)
        return [None, *(rising[1 : i + 1].sum(0) for i in range(1, self.config.layers))]

    def forward(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens [batch, time] -> logits [batch, time, vocabulary] and the state after the last token."""
        x, after = self.embeddings(tokens), []
        for block, bound, before in zip(self.layers, self.bounds(), state, strict=True):
            x, h = block(x, bound, before)
            after.append(h)
        return self.lm_head(self.norm(x)), after


_HEAD_NORM = "lm_head.norm.weight"


class MatMulFreeFamily(TableFamily):
    """Directories that the authors' package writes (model_type hgrn_bit)."""

    name = "matmulfree"
    model_types = ("hgrn_bit",)
    options = TABLE
    tensors = frozenset({"embeddings.weight", "layers.0.attn.g_norm.weight", "layers.0.attn.f_proj.norm.weight"})

    def rename(self, name: str) -> str | None:
        return re.sub(r"(_proj|lm_head)\.weight$", r"\1.linear.weight", without_wrappers(name))

    def build(self, shapes: Shapes, config: Config, options: ModelOptions) -> nn.Module:
        vocabulary, width = matrix(shapes, "embeddings.weight")
        _, hidden = matrix(shapes, "layers.0.mlp.down_proj.linear.weight")
        layers = count_layers(shapes, r"layers\.([0-9]{1,6})\.")
        sizes = {"vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": layers}
        said = TABLE.values(config, sizes | {"intermediate_size": hidden})
        found = MatMulFreeConfig(
            layers=layers, hidden_size=width, intermediate_size=hidden, vocabulary=vocabulary,
            ternary_head=_HEAD_NORM in shapes, lower_bound=said["lower_bound"], epsilon=said["epsilon"],
        )  # fmt: skip
        with torch.device("meta"):
            return MatMulFree(found)

    def tree(self, model: nn.Module) -> ModelTree:
        assert isinstance(model, MatMulFree)
        tree = grown_tree(self.name, model, model.state_specs(), head="lm_head.linear")
        exact = {name for name, module in model.named_modules() if isinstance(module, TernaryLinear)}
        blocks = (
            TreeBlock(b.path, tuple(replace(x, exact=TRITS.name) if x.path in exact else x for x in b.layers))
            for b in tree.blocks
        )
        # A graph holds the bounds of all layers but the first, and what they leave.
        c = model.config
        constants = (c.layers - 2) * c.hidden_size if c.lower_bound else 0
        return replace(tree, blocks=tuple(blocks), vector_params=tree.vector_params + constants)
