"""A stored integer matrix that can learn: latent weights and scales behind the rounding, the pattern kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from exporters.formats.integer import LARGEST_SCALE, SMALLEST_SCALE, Grid, IntegerFormat

HALF_STEP = 0.49
"""A latent weight starts within its own rounding cell: the codes at the start are those that were stored."""


def tunable(encoded: Encoded) -> bool:
    """Whether a stored matrix is in a format that can learn."""
    return isinstance(format_named(encoded.format), IntegerFormat)


class Rounded(nn.Module):
    """w = scale (clamp(round(latent / scale) + zero) - zero), differentiable as if nothing were rounded.

    The gradient passes the rounding unchanged (straight-through, Bengio et al., arXiv 1308.3432) and stops where a code
    is clamped; that of a scale follows from the same formula (LSQ, Esser et al., arXiv 1902.08153). Zeros stay.
    """

    def __init__(self, encoded: Encoded, weight: Tensor) -> None:
        """encoded: in an integer format; weight: what it stands for, float32 [rows, cols]."""
        super().__init__()
        fmt = format_named(encoded.format)
        assert isinstance(fmt, IntegerFormat)
        self.fmt = fmt
        self.rows, self.cols = encoded.shape
        scales = torch.from_numpy(encoded.planes["scales"].astype("float32"))
        self.scales = nn.Parameter(scales)
        zeros = encoded.planes.get("zeros")
        self.zeros = None if zeros is None else torch.from_numpy(zeros.astype("float32"))
        stored = torch.from_numpy(fmt.decode(encoded))
        reach = HALF_STEP * self._spread(scales).abs()
        self.latent = nn.Parameter(stored + torch.maximum(torch.minimum(weight - stored, reach), -reach))

    def _spread(self, groups: Tensor) -> Tensor:
        """[rows, groups] as [rows, cols]."""
        return groups.repeat_interleave(self.fmt.group_size(self.cols), 1)[:, : self.cols]

    def _zero(self) -> Tensor | float:
        return float(self.fmt.default_zero) if self.zeros is None else self._spread(self.zeros)

    def forward(self) -> Tensor:
        """The weight [rows, cols] that would be stored now, but for the rounding of its scales to float16."""
        scales, zero = self._spread(self.scales), self._zero()
        steps = self.latent / scales
        clamped = (steps + zero).clamp(0, self.fmt.levels - 1) - zero
        rounded = clamped + (clamped.round() - clamped).detach()
        return rounded * scales

    @torch.no_grad()
    def stored(self) -> Encoded:
        """The matrix in its format, on scales as float16 keeps them."""
        sign = torch.where(self.scales < 0, -1.0, 1.0)
        scales = (sign * self.scales.abs().clamp(SMALLEST_SCALE, LARGEST_SCALE)).half().float()
        zero = self._zero()
        codes = ((self.latent / self._spread(scales)).round() + zero).clamp(0, self.fmt.levels - 1)
        grid = Grid(scales.numpy(), None if self.zeros is None else self.zeros.numpy())
        return self.fmt.store(codes.to(torch.uint8).numpy(), grid)
