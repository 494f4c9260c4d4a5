"""Pruning methods for N:M and decomposed formats: masks by a score, SparseGPT and ALPS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from exporters.formats.base import Encoded, Format
from toolchain.compress.alps import Alps, damped, solve_masked
from toolchain.compress.descent import descend_jointly
from toolchain.compress.gptq import Gptq
from toolchain.compress.joint import Layout, compress_jointly, layout_of, prune
from toolchain.compress.layer_statistics import LayerStatistics
from toolchain.compress.scores import ESparse, Magnitude, PruningMetric, Ria, Wanda


class Pruner(Protocol):
    """A method that brings a matrix into an N:M pattern."""

    @property
    def name(self) -> str: ...

    @property
    def needs_hessian(self) -> bool:
        """Whether the method needs the layer's Hessian."""
        ...

    @property
    def needs_entropy(self) -> bool:
        """Whether the method needs the entropy of the input channels."""
        ...

    def takes(self, fmt: Format) -> bool:
        """Whether the method can bring a matrix into this format."""
        ...

    def prune(self, weight: Tensor, keep: int, of: int, statistics: LayerStatistics) -> Tensor:
        """weight [rows, cols] float32, unrounded, with `keep` of every `of` inputs and zeros elsewhere.

        Raises:
            SlmcError: a statistic that the method needs was not collected.
        """
        ...

    def compress(self, weight: Tensor, fmt: Format, statistics: LayerStatistics) -> Encoded:
        """weight [rows, cols] float32 in a format. Raises SlmcError like `prune`."""
        ...


def _pattern(keep: int, of: int) -> Layout:
    return Layout((keep,), (None,), of)


def stored_nearest(weight: Tensor, fmt: Format, kinds: Tensor) -> Encoded:
    """Round every weight [rows, cols] to nearest on the covering grid of its part. kinds: see `Layout.kinds`."""
    parts = []
    for number, part in enumerate(fmt.parts, 1):
        mask = (kinds == number).numpy()
        own = torch.where(kinds == number, weight, 0.0).numpy()
        grid = part.values.nearest_grid(own)
        parts.append((mask, part.values.codes(own, grid), grid))
    return fmt.join(parts)


@dataclass(frozen=True)
class Scored:
    """Keeps the weights with the highest scores and rounds them to nearest, without error feedback.

    In a decomposed format the highest scores become outliers and the next ones inliers. This is SDQ as published: it
    prunes, then decomposes, then rounds (Jeong et al., arXiv 2406.13868, section 4).
    """

    score: PruningMetric

    @property
    def name(self) -> str:
        return self.score.name

    @property
    def needs_hessian(self) -> bool:
        return self.score.needs_calibration

    @property
    def needs_entropy(self) -> bool:
        return isinstance(self.score, ESparse)

    def takes(self, fmt: Format) -> bool:
        return fmt.patterned

    def scores(self, weight: Tensor, statistics: LayerStatistics) -> Tensor:
        return self.score(weight, statistics)

    def prune(self, weight: Tensor, keep: int, of: int, statistics: LayerStatistics) -> Tensor:
        return weight * (_pattern(keep, of).kinds(self.scores(weight, statistics)) > 0)

    def compress(self, weight: Tensor, fmt: Format, statistics: LayerStatistics) -> Encoded:
        return stored_nearest(weight, fmt, layout_of(fmt).kinds(self.scores(weight, statistics)))


@dataclass(frozen=True)
class SparseGpt:
    """SparseGPT (Frantar and Alistarh, arXiv 2301.00774): masks and values column by column, with error feedback."""

    name: str = "sparsegpt"
    needs_hessian: bool = True
    needs_entropy: bool = False

    def takes(self, fmt: Format) -> bool:
        return fmt.patterned

    def prune(self, weight: Tensor, keep: int, of: int, statistics: LayerStatistics) -> Tensor:
        return prune(weight, _pattern(keep, of), statistics.required_hessian(self.name))

    def compress(self, weight: Tensor, fmt: Format, statistics: LayerStatistics) -> Encoded:
        return compress_jointly(weight, fmt, statistics.required_hessian(self.name))


@dataclass(frozen=True)
class AlpsPruner:
    """ALPS (Meng et al., NeurIPS 2024): the mask by ADMM, the kept weights by masked least squares.

    A format is then rounded with error feedback on this mask, as in `descent` but without its sweeps.
    """

    name: str = "alps"
    needs_hessian: bool = True
    needs_entropy: bool = False

    def takes(self, fmt: Format) -> bool:
        return fmt.patterned

    def prune(self, weight: Tensor, keep: int, of: int, statistics: LayerStatistics) -> Tensor:
        hessian = statistics.required_hessian(self.name)
        mask = Alps(Gptq.damping).mask(weight, hessian, keep, of)
        return solve_masked(weight, mask, damped(hessian, Gptq.damping))

    def compress(self, weight: Tensor, fmt: Format, statistics: LayerStatistics) -> Encoded:
        return descend_jointly(weight, fmt, statistics.required_hessian(self.name), sweeps=0)


PRUNERS: tuple[Pruner, ...] = (
    Scored(Magnitude()), Scored(Wanda()), Scored(Ria()), Scored(ESparse()), SparseGpt(), AlpsPruner(),
)  # fmt: skip
