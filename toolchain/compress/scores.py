"""Pruning scores: estimates of how much every weight of a layer matters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.compress.layer_statistics import LayerStatistics


class PruningMetric(Protocol):
    """A way to score weights before pruning."""

    @property
    def name(self) -> str: ...

    @property
    def needs_calibration(self) -> bool: ...

    def __call__(self, weight: Tensor, statistics: LayerStatistics) -> Tensor:
        """Scores [rows, cols] >= 0 for a weight [rows, cols]. The largest are kept.

        Raises:
            SlmcError: a statistic that the score needs was not collected.
        """
        ...


@dataclass(frozen=True)
class Magnitude:
    """|w_ij|."""

    name: str = "magnitude"
    needs_calibration: bool = False

    def __call__(self, weight: Tensor, statistics: LayerStatistics) -> Tensor:
        return weight.abs()


@dataclass(frozen=True)
class Wanda:
    """|w_ij| ||x_j|| (Sun et al., arXiv 2306.11695, section 3)."""

    name: str = "wanda"
    needs_calibration: bool = True

    def __call__(self, weight: Tensor, statistics: LayerStatistics) -> Tensor:
        return weight.abs() * statistics.rms(self.name)


@dataclass(frozen=True)
class Ria:
    """(|w_ij| / sum_i |w_ij| + |w_ij| / sum_j |w_ij|) ||x_j||^a, a = 1/2 (Zhang et al., ICLR 2024, section 3)."""

    power: float = 0.5
    name: str = "ria"
    needs_calibration: bool = True

    def __call__(self, weight: Tensor, statistics: LayerStatistics) -> Tensor:
        size = weight.abs()
        tiny = torch.finfo(size.dtype).tiny
        relative = size / size.sum(0).clamp_min(tiny) + size / size.sum(1, keepdim=True).clamp_min(tiny)
        return relative * statistics.rms(self.name) ** self.power


@dataclass(frozen=True)
class ESparse:
    """|w_ij| (IR_j + alpha FN_j): entropy and norm of the input channel (Li et al., arXiv 2310.15929, section 3).

    IR_j = -sum_b p_b ln p_b over bins of equal width in the range of channel j. FN_j is the root mean square here,
    not the norm, so that alpha does not depend on the length of the text. The paper does not give its alpha.
    """

    alpha: float = 1.0
    name: str = "esparse"
    needs_calibration: bool = True

    def __call__(self, weight: Tensor, statistics: LayerStatistics) -> Tensor:
        norm = statistics.rms(self.name)
        if statistics.entropy is None:
            raise SlmcError("score esparse needs the entropy of the input channels; calibrate with entropies first")
        return weight.abs() * (statistics.entropy + self.alpha * norm)


SCORES: tuple[PruningMetric, ...] = (Magnitude(), Wanda(), Ria(), ESparse())
