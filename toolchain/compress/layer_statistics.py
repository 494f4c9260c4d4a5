"""The calibration statistics of one layer that compression methods use."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from exporters.artifact.errors import SlmcError


@dataclass(frozen=True)
class LayerStatistics:
    """Statistics of one layer's inputs x over the calibration tokens. None: not collected.

    Attributes:
        hessian: H = mean of x x^T, float32 [cols, cols].
        entropy: of every input channel, in nats, float32 [cols] (toolchain.calibration.entropy).
    """

    hessian: Tensor | None = None
    entropy: Tensor | None = None

    def required_hessian(self, method: str) -> Tensor:
        """The Hessian, for a method that cannot do without.

        Raises:
            SlmcError: it was not collected.
        """
        if self.hessian is None:
            raise SlmcError(f"{method} needs calibration; choose method nearest or magnitude where there is none")
        return self.hessian

    def rms(self, method: str) -> Tensor:
        """Root mean square of every channel, ||X_:,j||_2 / sqrt(tokens), float32 [cols].

        Unlike the norm it does not depend on the length of the text.

        Raises:
            SlmcError: the Hessian was not collected.
        """
        return self.required_hessian(method).diagonal().sqrt()

    def reordered(self, order: Tensor) -> LayerStatistics:
        """The statistics after a permutation of the input channels; order: int64 [cols]."""
        return LayerStatistics(
            hessian=None if self.hessian is None else self.hessian[order][:, order],
            entropy=None if self.entropy is None else self.entropy[order],
        )
