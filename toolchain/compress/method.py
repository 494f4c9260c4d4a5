"""What a compression method is: from a weight matrix and what calibration saw of its input, to stored planes."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from exporters.formats.base import Encoded
from exporters.formats.parts import Values


class Method(Protocol):
    """One way to choose codes and scales for evenly spaced values."""

    @property
    def name(self) -> str: ...

    @property
    def needs_hessian(self) -> bool:
        """Whether the hessian of the layer's inputs must be given."""
        ...

    def compress(self, weight: Tensor, fmt: Values, hessian: Tensor | None) -> Encoded:
        """weight [rows, cols] float32, normalised (exporters.formats.scales);
        hessian [cols, cols] = mean of x x^T over calibration tokens, or None."""
        ...
