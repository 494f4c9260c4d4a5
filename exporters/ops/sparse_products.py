"""Products with sparse and four-bit float matrices as torch operators, decoded by their format."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from exporters.formats.base import Array, Encoded
from exporters.formats.float4 import Float4Format
from exporters.formats.integer import IntegerFormat
from exporters.formats.nm import NmFormat
from exporters.formats.sparse_tiles import out_of_tiles
from exporters.formats.tiles import TILE_ROWS, row_tensors
from exporters.ops.activations import rounded_activations
from exporters.ops.outputs import product_of_x


def _decoded(packed: dict[str, Array], K: int, N: int, group: int, bits: int, pattern: tuple[int, int, int],
             float4: bool, tile: int) -> Tensor:  # fmt: skip
    values = Float4Format(group) if float4 else IntegerFormat(bits, group, True)
    kept, period, pattern_rows = pattern
    if kept == period:
        packed = row_tensors(packed) if tile == TILE_ROWS else packed
        return torch.from_numpy(values.decode(Encoded(values.name, (N, K), packed)))
    fmt = NmFormat(kept, period, values, pattern_rows)
    packed = out_of_tiles(fmt, packed, K) if tile == TILE_ROWS else packed
    return torch.from_numpy(fmt.decode(Encoded(fmt.name, (N, K), packed)))


@torch.library.custom_op("slmc::sparse_linear", mutates_args=())
def sparse_linear(
    x: Tensor, codes: Tensor, scales: Tensor, high: Tensor | None, patterns: Tensor | None, K: int, N: int, bits: int,
    group: int, kept: int, period: int, pattern_rows: int, float4: int, activation_bits: int,
    tile: int,
) -> Tensor:  # fmt: skip
    """y[..., n] = sum_k x[..., k] w[n, k] with w from sparse tensors (see exporters.ops.signatures); x [..., K]."""
    named = {"codes": codes, "scales": scales, "high": high, "patterns": patterns}
    packed: dict[str, Array] = {n: tensor.numpy() for n, tensor in named.items() if tensor is not None}
    weight = _decoded(packed, K, N, group, bits, (kept, period, pattern_rows), bool(float4), tile)
    seen = rounded_activations(x, group) if activation_bits == 8 else x
    return functional.linear(seen, weight.to(x.dtype))


product_of_x(sparse_linear)
