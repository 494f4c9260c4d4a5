"""Scores for pruning: how much every weight of a layer seems to matter, from its size and its input channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError


@dataclass(frozen=True)
class Channels:
    """What calibration saw of a layer's inputs, channel by channel.

    square: mean of x_j^2 over tokens, float32 [cols]; entropy: of a histogram of x_j over its own range, in nats,
    float32 [cols], or None where it was not collected.
    """

    square: Tensor
    entropy: Tensor | None = None

    @property
    def rms(self) -> Tensor:
        """Root mean square of every channel: ||X_:,j||_2 / sqrt(tokens), free of the length of the text."""
        return self.square.sqrt()


class PruningMetric(Protocol):
    """A way to score weights before pruning."""

    @property
    def name(self) -> str: ...

    @property
    def needs_calibration(self) -> bool: ...

    def __call__(self, weight: Tensor, channels: Channels) -> Tensor:
        """Scores [rows, cols] of weight [rows, cols], larger is kept; all are at least 0."""
        ...


@dataclass(frozen=True)
class Magnitude:
    """|w_ij|."""

    name: str = "magnitude"
    needs_calibration: bool = False

    def __call__(self, weight: Tensor, channels: Channels) -> Tensor:
        return weight.abs()


@dataclass(frozen=True)
class Wanda:
    """|w_ij| ||x_j|| (Sun et al., arXiv 2306.11695, section 3)."""

    name: str = "wanda"
    needs_calibration: bool = True

    def __call__(self, weight: Tensor, channels: Channels) -> Tensor:
        return weight.abs() * channels.rms


@dataclass(frozen=True)
class Ria:
    """(|w_ij| / sum_i |w_ij| + |w_ij| / sum_j |w_ij|) ||x_j||^a, a = 1/2 (Zhang et al., ICLR 2024, section 3)."""

    power: float = 0.5
    name: str = "ria"
    needs_calibration: bool = True

    def __call__(self, weight: Tensor, channels: Channels) -> Tensor:
        size = weight.abs()
        tiny = torch.finfo(size.dtype).tiny
        relative = size / size.sum(0).clamp_min(tiny) + size / size.sum(1, keepdim=True).clamp_min(tiny)
        return relative * channels.rms**self.power


@dataclass(frozen=True)
class ESparse:
    """|w_ij| (IR_j + alpha FN_j): entropy and norm of the input channel (Li et al., arXiv 2310.15929, section 3).

    IR_j = -sum_b p_b ln p_b over equal-width bins of channel j's own range; FN_j = its root mean square here, so that
    alpha does not depend on the length of the text. The paper's alpha is not known to us.
    """

    alpha: float = 1.0
    name: str = "esparse"
    needs_calibration: bool = True

    def __call__(self, weight: Tensor, channels: Channels) -> Tensor:
        if channels.entropy is None:
            raise SlmcError("score esparse needs the entropy of the input channels; calibrate with entropies first")
        return weight.abs() * (channels.entropy + self.alpha * channels.rms)


SCORES: tuple[PruningMetric, ...] = (Magnitude(), Wanda(), Ria(), ESparse())


def score_named(name: str) -> PruningMetric:
    """The score of that name.

    Raises:
        SlmcError: there is none.
    """
    for score in SCORES:
        if score.name == name:
            return score
    raise SlmcError(f"unknown score {name!r}; allowed are {', '.join(s.name for s in SCORES)}")
