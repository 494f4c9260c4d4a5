"""Who reads and who writes a model's residual stream. Where norms alone look at it, its basis is free.

An RMSNorm without gain gives Q^T norm(x) for Q^T x with any orthogonal Q, a LayerNorm with those that leave the mean
as it is. So the stream of a model can be turned if every matrix that writes it and every matrix that reads it behind a
norm is turned too (QuaRot, arXiv 2404.00456, section 3; SliceGPT, arXiv 2401.15024, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from toolchain.model.catalog import LoadedModel
from toolchain.model.decoder import Decoder

PRODUCT = "product"

NormKind = Literal["rms", "layer"]

_NORMS: Mapping[type[nn.Module], NormKind] = {nn.RMSNorm: "rms", nn.LayerNorm: "layer"}


@dataclass(frozen=True)
class Read:
    """A norm of the stream and the linear layers that multiply what it gives, by their paths."""

    norm: str
    readers: tuple[str, ...]


@dataclass(frozen=True)
class Stream:
    """The residual stream of a model, by paths of modules.

    tables: embeddings whose rows are added to the stream. writers: linear layers whose outputs are. reads: norms of the
    stream with what reads behind them, the last one that of the head. tied: whether the head's matrix is that of the
    first table, so that the gain of the norm before it cannot be folded into one of the two.
    """

    width: int
    kind: NormKind
    tables: tuple[str, ...]
    writers: tuple[str, ...]
    reads: tuple[Read, ...]
    tied: bool

    @property
    def product(self) -> str:
        """Path of the layer that a tied model gets if its stream is turned: what is left of the last norm's gain."""
        return f"{self.reads[-1].norm}.{PRODUCT}"

    @property
    def paths(self) -> tuple[str, ...]:
        """Every layer that a rotation of the stream changes, and the product that it adds."""
        readers = (path for read in self.reads for path in read.readers)
        product = (self.product,) if self.tied else ()
        tables = self.tables[1:] if self.tied else self.tables
        return (*tables, *self.writers, *readers, *product)


@dataclass(frozen=True)
class StreamRule:
    """The same for all models of a family; what a model does not have is left out.

    blocks: path of the list of blocks; writers, reads: within a block. shared: the norm that also serves the readers of
    norms that a block does not have. entry, exit: projections between the stream and narrower tables. last: the norm
    before `heads`.
    """

    blocks: str
    tables: tuple[str, ...]
    entry: str
    exit: str
    writers: tuple[str, ...]
    reads: Mapping[str, tuple[str, ...]]
    shared: str
    last: str
    heads: tuple[str, ...]


DECODER_RULE = StreamRule(
    blocks="layers",
    tables=("embed_tokens", "embed_positions"),
    entry="project_in",
    exit="project_out",
    writers=("self_attn.o_proj", "mlp.down_proj"),
    reads={
        "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
    },
    shared="input_layernorm",
    last="norm",
    heads=("lm_head", "classifier"),
)
"""Of causal decoders with Llama's names. RWKV mixes each channel with itself of the token before, and spikes have a
threshold per channel: their streams have one basis."""


def residual_stream(model: LoadedModel) -> Stream | None:
    """The stream of a model whose basis is free; None if there is no rule for it, or something else looks at it."""
    module, rule = model.module, DECODER_RULE
    if not isinstance(module, Decoder) or module.config.placement != "before":
        return None
    paths = {name for name, _ in module.named_modules()}
    blocks = _blocks(module, rule) if {rule.blocks, rule.last, rule.tables[0]} <= paths else ()
    norms = [*(f"{b}.{n}" for b in blocks for n in rule.reads if f"{b}.{n}" in paths), rule.last]
    if not blocks or not _looked_at_by(module, blocks, rule):
        return None
    kinds = {_NORMS.get(type(module.get_submodule(path))) for path in norms}
    if len(kinds) != 1 or None in kinds:
        return None
    narrow = rule.entry in paths
    tables = tuple(t for t in rule.tables if t in paths and not (narrow and t == rule.tables[0]))
    writers = [rule.entry] * narrow + [f"{b}.{w}" for b in blocks for w in rule.writers]
    heads = (rule.exit,) if narrow else tuple(h for h in rule.heads if h in paths and _is_layer(model, h))
    reads = [read for block in blocks for read in _reads(block, rule, paths)]
    stream = Stream(
        width=len(module.get_parameter(f"{rule.last}.weight")),
        kind=next(kind for kind in kinds if kind),
        tables=tables,
        writers=tuple(writers),
        reads=(*reads, Read(rule.last, heads)),
        tied=not narrow and any(layer.table == rule.tables[0] for layer in model.tree.layers),
    )
    return stream if heads and _foldable(module, stream) else None


def _blocks(module: nn.Module, rule: StreamRule) -> tuple[str, ...]:
    return tuple(f"{rule.blocks}.{name}" for name, _ in module.get_submodule(rule.blocks).named_children())


def _reads(block: str, rule: StreamRule, paths: set[str]) -> list[Read]:
    """The reads of one block. Readers whose norm it does not have read behind the shared one."""
    readers: dict[str, list[str]] = {}
    for norm, names in rule.reads.items():
        holder = norm if f"{block}.{norm}" in paths else rule.shared
        readers.setdefault(holder, []).extend(f"{block}.{n}" for n in names if f"{block}.{n}" in paths)
    return [Read(f"{block}.{norm}", tuple(own)) for norm, own in readers.items()]


def _looked_at_by(module: nn.Module, blocks: tuple[str, ...], rule: StreamRule) -> bool:
    """Whether the norms of the rule alone look at the stream: they stand before a block's parts, with no others."""
    own = (name for b in blocks for name, child in module.get_submodule(b).named_children() if type(child) in _NORMS)
    return all(name in rule.reads for name in own) and all(
        f"{b}.{rule.shared}" in dict(module.named_modules()) for b in blocks
    )


def _is_layer(model: LoadedModel, path: str) -> bool:
    return any(layer.path == path for layer in model.tree.layers)


def _foldable(module: nn.Module, stream: Stream) -> bool:
    """Whether readers can take over what their norm adds."""
    for read in stream.reads[:-1] if stream.tied else stream.reads:
        shift = getattr(module.get_submodule(read.norm), "bias", None)
        if shift is not None and bool(shift.any()):
            biases = [module.get_submodule(path).bias for path in read.readers]
            if any(bias is None for bias in biases):
                return False
    return True
