"""A trainable corrected matrix: fake-quantized integers plus a diagonal or low-rank correction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from exporters.formats.corrected import half
from exporters.formats.parts import Correction
from exporters.formats.scales import exponent_of
from toolchain.tuning.fake_quantized import FakeQuantizedWeight
from toolchain.tuning.parametrization import WeightParametrization, shift_of
from toolchain.tuning.table_weight import TableWeight


class CorrectedWeight(WeightParametrization):
    """w = fake-quantized integers + diag(d), or + left right.

    The correction is not rounded in training and has the learning rate of scales.
    """

    def __init__(self, fmt: Correction, encoded: Encoded, weight: Tensor) -> None:
        """encoded: in the corrected format; weight: the original matrix, float32 [rows, cols]."""
        super().__init__()
        self.fmt = fmt
        correction = torch.from_numpy(fmt.beside(encoded)) * 2.0**encoded.exponent
        self.integers = FakeQuantizedWeight(fmt.integers(encoded), weight - correction)
        self.latent = self.integers.latent
        self.shift = shift_of(encoded)
        self.power = 0.5 if fmt.rank else 1.0
        moved = 2.0 ** ((encoded.exponent - self.shift) * self.power)
        learned = [torch.from_numpy(encoded.packed[name]).float() * moved for name in fmt.corrections]
        self.correction = nn.ParameterList(learned)
        self.scales = nn.ParameterList([*self.integers.scales, *self.correction])

    def forward(self) -> Tensor:
        integers: Tensor = self.integers()
        first, *second = self.correction
        correction = first @ second[0] if second else torch.diag(first)
        return integers + (correction * 2.0**self.shift if self.shift else correction)

    @torch.no_grad()
    def stored(self) -> Encoded:
        exponent = exponent_of(self().numpy())
        moved = 2.0 ** ((self.shift - exponent) * self.power)
        learned = {n: p.numpy() * moved for n, p in zip(self.fmt.corrections, self.correction, strict=True)}
        packed = {n: half(p) if self.fmt.rank else p.astype("float32") for n, p in learned.items()}
        return self.fmt.settled(self.fmt.store(self.integers.normalised(exponent), packed), exponent)


def parametrization_for(encoded: Encoded, weight: Tensor) -> WeightParametrization:
    """The parametrization of a matrix in a trainable format; weight: the original, float32 [rows, cols]."""
    fmt = format_named(encoded.format)
    if fmt.correction:
        return CorrectedWeight(fmt.correction, encoded, weight)
    learned = any(part.values.learned is not None for part in fmt.split(encoded))
    return TableWeight(encoded, weight) if learned else FakeQuantizedWeight(encoded, weight)
