"""Torch modules that hold sparse, decomposed and four-bit float weights and take the place of Linear."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from exporters.formats.base import Encoded
from exporters.formats.decomposed import INLIERS, OUTLIERS, DecomposedFormat
from exporters.formats.float4 import Float4Format
from exporters.formats.nm import NmFormat
from exporters.formats.sparse_tiles import in_tiles, sparse_tile_of
from exporters.formats.units import padded_columns
from exporters.ops.sparse_products import sparse_linear


class SparseLinear(nn.Module):
    """y = x W^T with W in an N:M or a four-bit float format; activation_bits (32 or 8) says how x is read."""

    codes: Tensor
    scales: Tensor
    high: Tensor | None
    patterns: Tensor | None

    def __init__(self, encoded: Encoded, fmt: NmFormat | Float4Format, activation_bits: int = 32) -> None:
        super().__init__()
        self.N, self.K = encoded.shape
        self.tile = sparse_tile_of(fmt, self.N, self.K)
        planes = encoded.planes
        if self.tile and isinstance(fmt, NmFormat):
            planes = in_tiles(fmt, planes)
        for name in ("codes", "scales", "high", "patterns"):
            plane = planes.get(name)
            self.register_buffer(name, None if plane is None else torch.from_numpy(plane.copy()))
        values = fmt.values if isinstance(fmt, NmFormat) else fmt
        self.bits, self.group = fmt.bits, fmt.group or padded_columns(self.K)
        self.kept, self.period, self.pattern_rows = 8, 8, 1
        if isinstance(fmt, NmFormat):
            self.kept, self.period, self.pattern_rows = fmt.kept, fmt.period, fmt.pattern_rows
        self.float4 = int(isinstance(values, Float4Format))
        self.activation_bits = activation_bits

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = sparse_linear(
            x, self.codes, self.scales, self.high, self.patterns, self.K, self.N, self.bits, self.group, self.kept,
            self.period, self.pattern_rows, self.float4, self.activation_bits, self.tile,
        )  # fmt: skip
        return y


class DecomposedLinear(nn.Module):
    """y = x O^T + x I^T with outliers O and inliers I."""

    def __init__(self, encoded: Encoded, fmt: DecomposedFormat) -> None:
        super().__init__()
        self.outliers = SparseLinear(fmt.part(encoded, OUTLIERS), fmt.outliers)
        self.inliers = SparseLinear(fmt.part(encoded, INLIERS), fmt.inliers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.outliers(x) + self.inliers(x)
        return y
