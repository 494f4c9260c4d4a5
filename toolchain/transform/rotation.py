"""Rotations that leave a model's function as it is: of the residual stream, and of the values within a head.

A rotation spreads outliers over all channels, so that a group of weights needs less range (QuaRot, arXiv 2404.00456;
QuIP#, arXiv 2402.04396). It is absorbed into the matrices on both sides of it and costs nothing at run time; only a
head that shares its matrix with the embedding keeps the gain of the norm before it, as a product of its own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toolchain.model.catalog import LoadedModel
from toolchain.model.permutation_groups import PermutationGroup
from toolchain.model.sharing import sharing_copy
from toolchain.model.stream import PRODUCT, NormKind, Stream
from toolchain.model.tree import Block, Layer, ModelTree


class NormThenProduct(nn.Module):
    """A norm, and the matrix that is left of its gain in a turned basis."""

    def __init__(self, norm: nn.Module, product: nn.Linear) -> None:
        super().__init__()
        self.norm = norm
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.product(self.norm(x))
        return y


@dataclass(frozen=True)
class StreamRotation:
    """Q of x' = Q^T x, float64 [width, width]: the rotation of a model's residual stream."""

    stream: Stream
    matrix: Tensor

    @property
    def added(self) -> str | None:
        """Path of the layer that a tied head needs; None where there is none."""
        return self.stream.product if self.stream.tied else None


@dataclass(frozen=True)
class HeadRotation:
    """R of v' = R^T v within every group of a group of heads, float64 [groups, width, width]."""

    group: PermutationGroup
    matrices: Tensor

    @property
    def inputs(self) -> Tensor:
        """The rotation of the consumer's inputs, float64 [cols, cols]: heads that share their values share a block."""
        return _diagonal(self.matrices.repeat_interleave(self.group.repeats, 0))

    @property
    def outputs(self) -> Tensor:
        """The rotation of the producers' outputs, float64 [rows, rows]."""
        return _diagonal(self.matrices)


def orthogonal(width: int, generator: torch.Generator, kind: NormKind = "rms") -> Tensor:
    """A random orthogonal matrix, float64 [width, width]; of kind 'layer' one that maps (1, ..., 1) to itself.

    Uniform over all such matrices: Q of a normal matrix, signs as R has them (Mezzadri, arXiv math-ph/0609050).
    """
    free = width - (kind == "layer")
    q, r = torch.linalg.qr(torch.randn(free, free, dtype=torch.float64, generator=generator))
    turned: Tensor = q * r.diagonal().sign()
    if kind == "rms":
        return turned
    # Householder: an orthogonal basis whose first vector is (1, ..., 1) / sqrt(n).
    basis = torch.eye(width, dtype=torch.float64)
    if width > 1:
        v = torch.full((width,), 1 / math.sqrt(width), dtype=torch.float64)
        v[0] -= 1
        basis -= 2 * torch.outer(v, v) / v.dot(v)
    whole = torch.eye(width, dtype=torch.float64)
    whole[1:, 1:] = turned
    return basis @ whole @ basis.T


def _diagonal(blocks: Tensor) -> Tensor:
    """Blocks [n, width, width] as one block-diagonal matrix."""
    n, width, _ = blocks.shape
    whole = blocks.new_zeros(n, width, n, width)
    whole[torch.arange(n), :, torch.arange(n)] = blocks
    return whole.view(n * width, n * width)


def rotated(model: LoadedModel, stream: StreamRotation | None, heads: Sequence[HeadRotation]) -> LoadedModel:
    """The model with its stream and its value heads turned. All products are of float64 and rounded once."""
    changed = _Weights(model)
    for head in heads:
        for path in head.group.producers:
            changed.multiply(path, left=head.outputs.T)
        changed.multiply(head.group.consumer, right=head.inputs)
    if stream is not None:
        _turn(changed, stream)
    return changed.written(stream)


class _Weights:
    """Matrices and vectors of a model in float64, as far as they are changed."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.changed: dict[str, Tensor] = {}

    def now(self, name: str) -> Tensor | None:
        """A parameter as it is by now; None if the model has none of that name."""
        if name not in self.changed:
            path, _, own = name.rpartition(".")
            parameter = getattr(self.model.module.get_submodule(path), own, None)
            return None if parameter is None else parameter.detach().double()
        return self.changed[name]

    def multiply(self, path: str, left: Tensor | None = None, right: Tensor | None = None) -> None:
        """W := left W right, b := left b."""
        weight, bias = self.now(f"{path}.weight"), self.now(f"{path}.bias")
        assert weight is not None
        weight = weight if left is None else left @ weight
        self.changed[f"{path}.weight"] = weight if right is None else weight @ right
        if left is not None and bias is not None:
            self.changed[f"{path}.bias"] = left @ bias

    def written(self, stream: StreamRotation | None) -> LoadedModel:
        """The model with what was changed, in the precision of its parameters."""
        module, tree = sharing_copy(self.model.module), self.model.tree
        product, shift = self.changed.pop(PRODUCT, None), self.changed.pop(f"{PRODUCT}.bias", None)
        shared = {f"{layer.path}.weight": f"{layer.table}.weight" for layer in tree.layers if layer.table}
        for name, value in self.changed.items():
            parameter = _set(module, name, value)
            for head, table in shared.items():
                if table == name:
                    _share(module, head, parameter)
        if stream is not None and product is not None:
            norm, width = stream.stream.reads[-1].norm, len(product)
            module.set_submodule(norm, _with_product(module.get_submodule(norm), product, shift))
            tree = with_added_layer(tree, Layer(stream.stream.product, "linear", width, width, added=True))
        return dataclasses.replace(self.model, module=module, tree=tree)


def _turn(changed: _Weights, rotation: StreamRotation) -> None:
    q, stream = rotation.matrix, rotation.stream
    for path in stream.writers:
        changed.multiply(path, left=q.T)
    for path in stream.tables:
        changed.multiply(path, right=q)
    for read in stream.reads:
        gain, shift = changed.now(f"{read.norm}.weight"), changed.now(f"{read.norm}.bias")
        assert gain is not None
        if read is stream.reads[-1] and stream.tied:
            changed.changed[PRODUCT] = q.T @ (gain[:, None] * q)
            if shift is not None and shift.any():
                changed.changed[f"{PRODUCT}.bias"] = q.T @ shift
        else:
            for path in read.readers:
                _fold(changed, path, gain, shift)
                changed.multiply(path, right=q)
        if shift is not None:
            changed.changed[f"{read.norm}.bias"] = torch.zeros_like(shift)
        changed.changed[f"{read.norm}.weight"] = torch.ones_like(gain)


def _fold(changed: _Weights, path: str, gain: Tensor, shift: Tensor | None) -> None:
    """W (gain n + shift) + b = (W gain) n + (W shift + b)."""
    weight, bias = changed.now(f"{path}.weight"), changed.now(f"{path}.bias")
    assert weight is not None
    if shift is not None and bias is not None:
        changed.changed[f"{path}.bias"] = bias + weight @ shift
    changed.changed[f"{path}.weight"] = weight * gain


def _set(module: nn.Module, name: str, value: Tensor) -> nn.Parameter:
    path, _, own = name.rpartition(".")
    holder = module.get_submodule(path)
    parameter = nn.Parameter(value.to(getattr(holder, own).dtype), requires_grad=False)
    setattr(holder, own, parameter)
    return parameter


def _share(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    path, _, own = name.rpartition(".")
    setattr(module.get_submodule(path), own, parameter)


def _with_product(norm: nn.Module, matrix: Tensor, shift: Tensor | None) -> NormThenProduct:
    product = nn.Linear(matrix.shape[1], matrix.shape[0], bias=shift is not None, device="meta")
    dtype = next(norm.parameters()).dtype
    product.weight = nn.Parameter(matrix.to(dtype), requires_grad=False)
    if shift is not None:
        product.bias = nn.Parameter(shift.to(dtype), requires_grad=False)
    return NormThenProduct(norm, product).eval()


def with_added_layer(tree: ModelTree, layer: Layer) -> ModelTree:
    """The tree with one more layer, at the beginning of its last block."""
    *blocks, last = tree.blocks
    return dataclasses.replace(tree, blocks=(*blocks, Block(last.path, (layer, *last.layers))))
