"""Products with and rows of a matrix whose codes stand for the steps of a table, as torch operators."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from exporters.formats.base import Array, Encoded
from exporters.formats.nonuniform import NonUniformFormat
from exporters.formats.tiles import row_tensors
from exporters.ops.activations import rounded_activations


def _decoded(
    codes: Tensor, scales: Tensor, high: Tensor | None, steps: Tensor, K: int, N: int, bits: int, group: int, tile: int
) -> Tensor:
    """The weight float32 [N, K] that packed tensors stand for."""
    packed: dict[str, Array] = {"codes": codes.numpy(), "scales": scales.numpy()}
    if high is not None:
        packed["high"] = high.numpy()
    packed = row_tensors(packed) if tile else packed
    fmt = NonUniformFormat(bits, group)
    return torch.from_numpy(fmt.decode(Encoded(fmt.name, (N, K), {**packed, "steps": steps.numpy()})))


@torch.library.custom_op("slmc::table_linear", mutates_args=())
def table_linear(
    x: Tensor, codes: Tensor, scales: Tensor, high: Tensor | None, steps: Tensor, K: int, N: int, bits: int,
    group: int, activation_bits: int, tile: int,
) -> Tensor:  # fmt: skip
    """y[..., n] = sum_k x[..., k] w[n, k] with w of a table's steps; x [..., K].

    activation_bits, tile: as of exporters.ops.products.qlinear.
    """
    if activation_bits == 8:
        x = rounded_activations(x, group)
    return functional.linear(x, _decoded(codes, scales, high, steps, K, N, bits, group, tile).to(x.dtype))


@table_linear.register_fake
def _(
    x: Tensor, codes: Tensor, scales: Tensor, high: Tensor | None, steps: Tensor, K: int, N: int, bits: int,
    group: int, activation_bits: int, tile: int,
) -> Tensor:  # fmt: skip
    return x.new_empty(*x.shape[:-1], N)


@torch.library.custom_op("slmc::table_embedding", mutates_args=())
def table_embedding(
    tokens: Tensor, codes: Tensor, scales: Tensor, high: Tensor | None, steps: Tensor, K: int, N: int, bits: int,
    group: int, tile: int,
) -> Tensor:  # fmt: skip
    """Rows w[token] float32 [..., K] of a matrix of a table's steps; tokens int64 [...]."""
    return functional.embedding(tokens, _decoded(codes, scales, high, steps, K, N, bits, group, tile))


@table_embedding.register_fake
def _(
    tokens: Tensor, codes: Tensor, scales: Tensor, high: Tensor | None, steps: Tensor, K: int, N: int, bits: int,
    group: int, tile: int,
) -> Tensor:  # fmt: skip
    return tokens.new_empty(*tokens.shape, K, dtype=torch.float32)
