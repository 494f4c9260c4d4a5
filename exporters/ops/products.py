"""The weight operators as torch operators: products and look-ups over stored tensors, decoded by their format."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from exporters.formats.base import Array, Encoded
from exporters.formats.dense import SIGN
from exporters.formats.integer import IntegerFormat
from exporters.formats.tiles import row_tensors
from exporters.ops.activations import rounded_activations
from exporters.ops.outputs import product_of_x, rows_of_tokens


def _decoded(
    codes: Tensor, scales: Tensor, high: Tensor | None, zeros: Tensor | None, K: int, N: int, bits: int, group: int,
    tile: int = 0,
) -> Tensor:  # fmt: skip
    """The weight float32 [N, K] that integer packed tensors stand for."""
    packed: dict[str, Array] = {"codes": codes.numpy(), "scales": scales.numpy()}
    if high is not None:
        packed["high"] = high.numpy()
    if zeros is not None:
        packed["zeros"] = zeros.numpy()
    fmt = IntegerFormat(bits, group, zeros is None)
    packed = row_tensors(packed) if tile else packed
    return torch.from_numpy(fmt.decode(Encoded(fmt.name, (N, K), packed)))


@torch.library.custom_op("slmc::qlinear", mutates_args=())
def qlinear(
    x: Tensor, codes: Tensor, scales: Tensor, high: Tensor | None, zeros: Tensor | None, K: int, N: int, bits: int,
    group: int, activation_bits: int, tile: int,
) -> Tensor:  # fmt: skip
    """y[..., n] = sum_k x[..., k] w[n, k] with w from integer tensors (see exporters.ops.signatures); x [..., K].

    activation_bits: 32 takes x as it is, 8 rounds it first (see exporters.ops.activations). tile: 16 where the tensors
    lie in tiles (exporters.formats.tiles), else 0.
    """
    if activation_bits == 8:
        x = rounded_activations(x, group)
    return functional.linear(x, _decoded(codes, scales, high, zeros, K, N, bits, group, tile).to(x.dtype))


product_of_x(qlinear)


@torch.library.custom_op("slmc::half_linear", mutates_args=())
def half_linear(x: Tensor, w: Tensor) -> Tensor:
    """y = x w^T with w float16 [N, K] and x [..., K]; the sum in x's type."""
    return functional.linear(x, w.to(x.dtype))


@half_linear.register_fake
def _(x: Tensor, w: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], w.shape[0])


@torch.library.custom_op("slmc::qembedding", mutates_args=())
def qembedding(
    tokens: Tensor, codes: Tensor, scales: Tensor, high: Tensor | None, zeros: Tensor | None, K: int, N: int, bits: int,
    group: int, tile: int,
) -> Tensor:  # fmt: skip
    """Rows w[token] float32 [..., K] of a matrix stored as integer tensors; tokens int64 [...]; tile as in qlinear."""
    return functional.embedding(tokens, _decoded(codes, scales, high, zeros, K, N, bits, group, tile))


rows_of_tokens(qembedding)


@torch.library.custom_op("slmc::sign_embedding", mutates_args=())
def sign_embedding(tokens: Tensor, codes: Tensor, K: int, N: int) -> Tensor:
    """Rows of +1 and -1, float32 [..., K], from one bit per weight; tokens int64 [...]."""
    weight = SIGN.decode(Encoded(SIGN.name, (N, K), {"codes": codes.numpy()}))
    return functional.embedding(tokens, torch.from_numpy(weight))


rows_of_tokens(sign_embedding)
