"""Torch modules that hold a weight as stored and take the place of Linear and Embedding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from exporters.formats.parts import Array, Node, Product
from exporters.ops.events import event_linear
from exporters.ops.products import half_linear, qembedding, qlinear, sign_embedding
from exporters.ops.signatures import SIGNATURES
from exporters.ops.sparse_products import sparse_linear
from exporters.ops.tables import table_embedding, table_linear
from exporters.ops.ternary import ternary_linear


def _rows(tokens: Tensor, weight: Tensor) -> Tensor:
    return functional.embedding(tokens, weight).float()


def _columns(tokens: Tensor, weight: Tensor) -> Tensor:
    """Rows of a float32 table [N, K] that is kept transposed, [K, N], for a product."""
    return torch.index_select(weight, 1, tokens.flatten()).t().reshape(*tokens.shape, -1)


OPERATORS: dict[str, Callable[..., Tensor]] = {
    "QLinear": qlinear,
    "TableLinear": table_linear,
    "EventLinear": event_linear,
    "SparseLinear": sparse_linear,
    "TernaryLinear": ternary_linear,
    "HalfLinear": half_linear,
    "QEmbedding": qembedding,
    "TableEmbedding": table_embedding,
    "SignEmbedding": sign_embedding,
    "MatMul": lambda x, weight: x @ weight,
    "Mul": lambda x, factor: x * factor,
    "Gather": _rows,
    "GatherColumns": _columns,
}
"""What computes a format's node in torch: x, then its packed tensors, then its attributes."""

_INTS = {signature.name: signature.ints for signature in SIGNATURES}


class _Call:
    """A node without its packed tensors, which a module holds by their names."""

    def __init__(self, node: Node, activation_bits: int) -> None:
        self.operator, self.inputs = OPERATORS[node.operator], node.inputs
        attributes = {**node.attributes, "activation_bits": activation_bits}
        self.attributes = {name: attributes[name] for name in _INTS.get(node.operator, ())}

    def __call__(self, holder: nn.Module, x: Tensor) -> Tensor:
        packed = (getattr(holder, name) for name in self.inputs)
        return self.operator(x, *packed, *self.attributes.values())


def _tensor(tensor: Array | None) -> Tensor | None:
    return None if tensor is None else torch.from_numpy(tensor.copy())


class Stored(nn.Module):
    """One node over the packed tensors of a matrix."""

    def __init__(self, node: Node, activation_bits: int) -> None:
        super().__init__()
        self.call = _Call(node, activation_bits)
        for name in node.inputs:
            self.register_buffer(name, _tensor(node.packed.get(name)))

    @property
    def tile(self) -> int:
        """Rows of a tile that the packed tensors lie in, 0 where they lie row by row."""
        return self.call.attributes.get("tile", 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self, x)


class Sum(nn.Module):
    """The sum of a product's terms. Packed tensors of a term without a name of its own lie in this very module."""

    def __init__(self, product: Product, activation_bits: int) -> None:
        super().__init__()
        self.order, self.places = product.order, [term.at for term in product.terms]
        own = [node for term in product.terms if not term.at for node in term.nodes]
        for name, tensor in sorted((name, tensor) for node in own for name, tensor in node.packed.items()):
            self.register_buffer(name, _tensor(tensor))
        self.calls = [[_Call(n, activation_bits) for n in t.nodes if not t.at] for t in product.terms]
        for term in product.terms:
            if term.at:
                self.add_module(term.at, Stored(term.nodes[0], activation_bits))

    def forward(self, x: Tensor) -> Tensor:
        found = {number: self._term(number, x) for number in self.order}
        first, *others = (found[number] for number in range(len(found)))
        for other in others:
            first = first + other
        return first

    def _term(self, number: int, x: Tensor) -> Tensor:
        if self.places[number]:
            y: Tensor = self.get_submodule(self.places[number])(x)
            return y
        for call in self.calls[number]:
            x = call(self, x)
        return x


class Scaled(nn.Module):
    """What a module gives, times a power of two: that of a matrix whose scales float16 cannot hold."""

    def __init__(self, stored: nn.Module, exponent: int) -> None:
        super().__init__()
        self.stored, self.exponent = stored, exponent

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stored(x) * 2.0**self.exponent
        return y


def stored_module(encoded: Encoded, kind: str, activation_bits: int = 32, shared: bool = False) -> nn.Module:
    """The module that computes with a stored matrix; kind is 'linear' or 'embedding'.

    activation_bits: 32, or 8 where the product of the format can round its inputs. shared: an embedding that
    reads the packed tensors of a linear layer.

    Raises:
        SlmcError: the format cannot serve such a layer.
    """
    if encoded.exponent:
        usual = dataclasses.replace(encoded, exponent=0)
        return Scaled(stored_module(usual, kind, activation_bits, shared), encoded.exponent)
    fmt = format_named(encoded.format)
    if kind == "embedding":
        return Stored(fmt.look_up(encoded, shared), activation_bits)
    if kind != "linear":
        raise fmt.cannot_hold(kind)
    product = fmt.product(encoded)
    rounded = activation_bits if fmt.input_group(encoded.shape[1]) is not None else 32
    (first, *others) = product.terms
    return Sum(product, rounded) if others else Stored(first.nodes[0], rounded)
