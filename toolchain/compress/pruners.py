"""Methods for N:M and decomposed formats by name: masks by a score, SparseGPT, ALPS; to floats or to a format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Encoded, Format
from toolchain.compress.alps import Alps, damped, solve_masked
from toolchain.compress.descent import descend_jointly
from toolchain.compress.gptq import Gptq
from toolchain.compress.joint import Layout, Part, compress_jointly, layout_of, prune
from toolchain.compress.scores import Channels, ESparse, Magnitude, PruningMetric, Ria, Wanda


@dataclass(frozen=True)
class Seen:
    """What calibration saw of a layer's inputs.

    hessian: mean of x x^T, float32 [cols, cols]; entropy: of every channel in nats, float32 [cols]
    (toolchain.calibration.entropy). None where it was not collected.
    """

    hessian: Tensor | None = None
    entropy: Tensor | None = None

    def channels(self, cols: int) -> Channels:
        square = torch.ones(cols) if self.hessian is None else self.hessian.diagonal()
        return Channels(square, self.entropy)


class Pruner(Protocol):
    """One way to bring a matrix into an N:M pattern."""

    @property
    def name(self) -> str: ...

    @property
    def needs_hessian(self) -> bool:
        """Whether the hessian of the layer's inputs must be given."""
        ...

    @property
    def needs_entropy(self) -> bool:
        """Whether the entropy of the input channels must be given."""
        ...

    def takes(self, fmt: Format) -> bool:
        """Whether it can bring a matrix into a format."""
        ...

    def prune(self, weight: Tensor, keep: int, of: int, seen: Seen) -> Tensor:
        """weight [rows, cols] float32 with `keep` of every `of` inputs, the others zero; nothing is rounded."""
        ...

    def compress(self, weight: Tensor, fmt: Format, seen: Seen) -> Encoded:
        """weight [rows, cols] float32 as the format stores it."""
        ...


def _pattern(keep: int, of: int) -> Layout:
    return Layout((Part(None, keep),), of)


def hessian_of(name: str, seen: Seen) -> Tensor:
    """The hessian that a method needs.

    Raises:
        SlmcError: it was not collected.
    """
    if seen.hessian is None:
        raise SlmcError(f"{name} needs calibration; choose method nearest or magnitude where there is none")
    return seen.hessian


def stored_nearest(weight: Tensor, fmt: Format, kinds: Tensor) -> Encoded:
    """Every weight [rows, cols] to the nearest value of its part's covering grid; kinds as in `Layout.kinds`."""
    parts = []
    for number, part in enumerate(fmt.parts, 1):
        mask = (kinds == number).numpy()
        own = torch.where(kinds == number, weight, 0.0).numpy()
        grid = part.values.nearest_grid(own)
        parts.append((mask, part.values.codes(own, grid), grid))
    return fmt.join(parts)


@dataclass(frozen=True)
class Scored:
    """What a score ranks highest is kept as it is, then rounded to the nearest: no error is made good by other weights.

    In a decomposed format the highest become outliers, the next inliers: SDQ as published, which prunes, decomposes and
    rounds one after the other (Jeong et al., arXiv 2406.13868, section 4).
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

    def scores(self, weight: Tensor, seen: Seen) -> Tensor:
        if self.needs_hessian:
            hessian_of(self.name, seen)
        return self.score(weight, seen.channels(weight.shape[1]))

    def prune(self, weight: Tensor, keep: int, of: int, seen: Seen) -> Tensor:
        return weight * (_pattern(keep, of).kinds(self.scores(weight, seen)) > 0)

    def compress(self, weight: Tensor, fmt: Format, seen: Seen) -> Encoded:
        return stored_nearest(weight, fmt, layout_of(fmt).kinds(self.scores(weight, seen)))


@dataclass(frozen=True)
class SparseGpt:
    """SparseGPT (Frantar and Alistarh, arXiv 2301.00774): masks and values chosen column by column, with feedback."""

    name: str = "sparsegpt"
    needs_hessian: bool = True
    needs_entropy: bool = False

    def takes(self, fmt: Format) -> bool:
        return fmt.patterned

    def prune(self, weight: Tensor, keep: int, of: int, seen: Seen) -> Tensor:
        return prune(weight, _pattern(keep, of), hessian_of(self.name, seen))

    def compress(self, weight: Tensor, fmt: Format, seen: Seen) -> Encoded:
        return compress_jointly(weight, fmt, hessian_of(self.name, seen))


@dataclass(frozen=True)
class AlpsPruner:
    """The mask by ADMM, the kept weights by masked least squares; rounding, with feedback, on the mask as it is.

    Meng et al., ALPS (NeurIPS 2024); `descent` without its sweeps.
    """

    name: str = "alps"
    needs_hessian: bool = True
    needs_entropy: bool = False

    def takes(self, fmt: Format) -> bool:
        return fmt.patterned

    def prune(self, weight: Tensor, keep: int, of: int, seen: Seen) -> Tensor:
        hessian = hessian_of(self.name, seen)
        mask = Alps(Gptq.damping).mask(weight, hessian, keep, of)
        return solve_masked(weight, mask, damped(hessian, Gptq.damping))

    def compress(self, weight: Tensor, fmt: Format, seen: Seen) -> Encoded:
        return descend_jointly(weight, fmt, hessian_of(self.name, seen), sweeps=0)


PRUNERS: tuple[Pruner, ...] = (
    Scored(Magnitude()), Scored(Wanda()), Scored(Ria()), Scored(ESparse()), SparseGpt(), AlpsPruner(),
)  # fmt: skip
