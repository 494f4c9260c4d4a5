"""The hierarchy of a network: model > block > layer, with what a search must know of each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from exporters.states import StateSpec


@dataclass(frozen=True)
class Layer:
    """One weight matrix [rows, cols]; rows are outputs, or vocabulary entries of an embedding.

    kind: what a row is looked up by, if it is: 'embedding' by token, 'positions' by place in the text.
    exact: name of the format that keeps all that the model looks at (its signs alone, say); no other is allowed.
    table: path of the embedding that shares the matrix of a linear layer, which is then stored once.
    added: whether a transformation put it there, so that the original model does not have it.
    counts: whether its inputs are whole numbers of spikes, each times a threshold.
    """

    path: str
    kind: Literal["linear", "embedding", "positions"]
    rows: int
    cols: int
    exact: str | None = None
    table: str | None = None
    added: bool = False
    counts: bool = False

    @property
    def params(self) -> int:
        return self.rows * self.cols

    @property
    def bytes_fp32(self) -> int:
        return 4 * self.params


@dataclass(frozen=True)
class Block:
    """Layers that belong together: 'emb', 'blocks.0', 'head'; its modules are att and ffn."""

    path: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class ModelTree:
    """A whole network.

    vector_params: values outside the layers (norms, mixes, decays), but for single numbers, which a graph holds itself.
    state_values: values carried from token to token.
    head: path of the module that gives logits of rows one by one; the last layer if None.
    state_bytes: of these as stored, state_bytes_fp32: as the uncompressed model has them; None if all are float32.
    spikes: whether values pass thresholds, so that a small error may turn a spike on or off.
    """

    family: str
    blocks: tuple[Block, ...]
    vector_params: int
    state_values: int
    state_bytes: int | None = None
    state_bytes_fp32: int | None = None
    head: str | None = None
    spikes: bool = False

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(layer for block in self.blocks for layer in block.layers)

    @property
    def params(self) -> int:
        """Of the original model."""
        return self.vector_params + sum(layer.params for layer in self.layers if not layer.added)

    @property
    def bytes_fp32(self) -> int:
        """Weights and states of the original model: what percentages of memory refer to."""
        return 4 * self.params + self.exact_state_bytes

    @property
    def fixed_bytes(self) -> int:
        """What no format changes: vectors, which stay fp32, and states."""
        return 4 * self.vector_params + self.stored_state_bytes

    @property
    def exact_state_bytes(self) -> int:
        """States of the uncompressed model: float32, and a position in the text as the integer that it is."""
        return 4 * self.state_values if self.state_bytes_fp32 is None else self.state_bytes_fp32

    @property
    def stored_state_bytes(self) -> int:
        return self.exact_state_bytes if self.state_bytes is None else self.state_bytes

    @property
    def vocabulary(self) -> int:
        """Entries of the table that tokens are looked up in."""
        return next(layer.rows for layer in self.layers if layer.kind == "embedding" or layer.table)


def grown_tree(
    family: str, model: nn.Module, states: list[StateSpec], *, blocks: str = "layers", head: str = "lm_head",
    positions: tuple[str, ...] = (), tied: str | None = None,
) -> ModelTree:  # fmt: skip
    """The hierarchy of a model by its modules: tables first, then `blocks`.0, `blocks`.1 ..., then what follows them.

    Args:
        states: what it carries.
        head: path of the linear layer that gives the logits.
        positions: paths of the tables that are looked up by place in the text.
        tied: path of the embedding whose matrix is the head's too.
    """
    outside: dict[str, list[Layer]] = {"emb": [], "head": []}
    numbered: dict[str, list[Layer]] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding) and path != tied:
            kind: Literal["positions", "embedding"] = "positions" if path in positions else "embedding"
            outside["emb"].append(Layer(path, kind, module.num_embeddings, module.embedding_dim))
        elif isinstance(module, nn.Linear):
            table = tied if path == head else None
            layer = Layer(path, "linear", module.out_features, module.in_features, table=table)
            if path.startswith(f"{blocks}."):
                numbered.setdefault(".".join(path.split(".")[: blocks.count(".") + 2]), []).append(layer)
            else:
                outside["head"].append(layer)
    found = {"emb": outside["emb"], **numbered, "head": outside["head"]}
    held = {f"{path}.weight" for some in found.values() for layer in some for path in (layer.path, layer.table)}
    return ModelTree(
        family,
        tuple(Block(path, tuple(layers)) for path, layers in found.items() if layers),
        sum(p.numel() for name, p in model.named_parameters(remove_duplicate=False) if name not in held and p.ndim),
        sum(s.values for s in states),
        state_bytes_fp32=sum(s.nbytes for s in states),
    )
