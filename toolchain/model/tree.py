"""The hierarchy of a network: model > block > layer, with what a search must know of each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Layer:
    """One weight matrix [rows, cols]; rows are outputs, or vocabulary entries of an embedding.

    sign_only: the model looks at nothing but the signs, so that one bit per weight is exact.
    """

    path: str
    kind: Literal["linear", "embedding"]
    rows: int
    cols: int
    sign_only: bool = False

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

    vector_params: values outside the layers (norms, mixes, decays). state_values: values carried from token to token.
    """

    family: str
    blocks: tuple[Block, ...]
    vector_params: int
    state_values: int

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(layer for block in self.blocks for layer in block.layers)

    @property
    def params(self) -> int:
        return self.vector_params + sum(layer.params for layer in self.layers)

    @property
    def bytes_fp32(self) -> int:
        """Weights and states of the uncompressed model: what percentages of memory refer to."""
        return 4 * (self.params + self.state_values)

    @property
    def fixed_bytes(self) -> int:
        """What no format changes: vectors and states stay fp32."""
        return 4 * (self.vector_params + self.state_values)

    def block_of(self, path: str) -> str:
        """The path of the block that holds a layer."""
        return next(block.path for block in self.blocks for layer in block.layers if layer.path == path)
