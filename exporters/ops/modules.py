"""Torch modules that hold a weight as stored and take the place of Linear and Embedding."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.errors import SlmcError
from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from exporters.formats.corrected import CorrectedFormat
from exporters.formats.decomposed import DecomposedFormat
from exporters.formats.dense import FloatFormat, SignFormat
from exporters.formats.event import EventFormat
from exporters.formats.float4 import Float4Format
from exporters.formats.integer import IntegerFormat
from exporters.formats.nm import NmFormat
from exporters.formats.tiles import tile_of, tiled_planes
from exporters.ops.events import EventLinear
from exporters.ops.products import half_linear, qembedding, qlinear, sign_embedding
from exporters.ops.sparse_modules import DecomposedLinear, SparseLinear


class _Stored(nn.Module):
    """The planes of one matrix [N, K] as buffers."""

    def __init__(self, encoded: Encoded) -> None:
        super().__init__()
        self.N, self.K = encoded.shape
        for name, plane in encoded.planes.items():
            self.register_buffer(name, torch.from_numpy(plane.copy()))


class FloatLinear(_Stored):
    """y = x W^T with W float32, kept transposed [K, N] as ONNX MatMul wants it."""

    weight: Tensor

    def __init__(self, encoded: Encoded) -> None:
        super().__init__(encoded)
        self.weight = self.weight.t().contiguous()

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class HalfLinear(_Stored):
    """y = x W^T with W float16 [N, K]."""

    weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = half_linear(x, self.weight)
        return y


class FloatEmbedding(_Stored):
    """Rows of a float16 or float32 table [N, K], as float32."""

    weight: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        return functional.embedding(tokens, self.weight).float()


class SignEmbedding(_Stored):
    """Rows of +1 and -1."""

    codes: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = sign_embedding(tokens, self.codes, self.K, self.N)
        return y


class _Integer(_Stored):
    codes: Tensor
    scales: Tensor
    high: Tensor | None
    zeros: Tensor | None

    def __init__(self, encoded: Encoded, fmt: IntegerFormat) -> None:
        super().__init__(encoded)
        self.bits, self.group = fmt.bits, fmt.group_size(self.K)
        for name in ("high", "zeros"):
            if name not in encoded.planes:
                self.register_buffer(name, None)


class IntegerLinear(_Integer):
    """y = x W^T with W from integer planes; activation_bits 8 rounds x first, 32 does not.

    Planes are put in tiles (exporters.formats.tiles), except where an embedding shares them.
    """

    def __init__(self, encoded: Encoded, fmt: IntegerFormat, activation_bits: int, shared: bool = False) -> None:
        tile = 0 if shared else tile_of(encoded.shape[0], fmt.group_size(encoded.shape[1]))
        if tile:
            encoded = dataclasses.replace(encoded, planes=tiled_planes(encoded.planes))
        super().__init__(encoded, fmt)
        self.activation_bits, self.tile = activation_bits, tile

    def forward(self, x: Tensor) -> Tensor:
        planes = (self.codes, self.scales, self.high, self.zeros)
        y: Tensor = qlinear(x, *planes, self.K, self.N, self.bits, self.group, self.activation_bits, self.tile)
        return y


class CorrectedLinear(nn.Module):
    """y = x W^T + d x, or y = x W^T + (x right^T) left^T, with W from integer planes."""

    diagonal: Tensor
    left: Tensor
    right: Tensor

    def __init__(self, encoded: Encoded, fmt: CorrectedFormat, activation_bits: int) -> None:
        super().__init__()
        self.values = IntegerLinear(fmt.integers(encoded), fmt.values, activation_bits)
        self.rank = fmt.rank
        for name in fmt.planes:
            self.register_buffer(name, torch.from_numpy(encoded.planes[name].copy()))

    def forward(self, x: Tensor) -> Tensor:
        beside = half_linear(half_linear(x, self.right), self.left) if self.rank else x * self.diagonal
        y: Tensor = self.values(x) + beside
        return y


class IntegerEmbedding(_Integer):
    """Rows of a table stored as integer planes."""

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = qembedding(
            tokens, self.codes, self.scales, self.high, self.zeros, self.K, self.N, self.bits, self.group
        )
        return y


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

    activation_bits: 32, or 8 where the product of the format can round its inputs. shared: an embedding reads the same
    planes, row by row.

    Raises:
        SlmcError: the format cannot serve such a layer.
    """
    if encoded.exponent:
        usual = dataclasses.replace(encoded, exponent=0)
        return Scaled(stored_module(usual, kind, activation_bits, shared), encoded.exponent)
    fmt = format_named(encoded.format)
    match fmt, kind:
        case IntegerFormat(), "linear":
            return IntegerLinear(encoded, fmt, activation_bits, shared)
        case EventFormat(), "linear":
            return EventLinear(encoded, fmt, activation_bits)
        case IntegerFormat(), "embedding":
            return IntegerEmbedding(encoded, fmt)
        case FloatFormat(bits=32), "linear":
            return FloatLinear(encoded)
        case FloatFormat(), "linear":
            return HalfLinear(encoded)
        case FloatFormat(), "embedding":
            return FloatEmbedding(encoded)
        case SignFormat(), "embedding":
            return SignEmbedding(encoded)
        case NmFormat() | Float4Format(), "linear":
            return SparseLinear(encoded, fmt, activation_bits)
        case DecomposedFormat(), "linear":
            return DecomposedLinear(encoded, fmt)
        case CorrectedFormat(), "linear":
            return CorrectedLinear(encoded, fmt, activation_bits)
    raise SlmcError(
        f"format {encoded.format} cannot hold a {kind} layer; sign is for binarised embeddings only; sparse, "
        "four-bit float, corrected and event/ formats are for linear layers only"
    )
