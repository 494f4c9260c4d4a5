"""The interface of compression methods for evenly spaced values."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from exporters.formats.base import Encoded
from exporters.formats.parts import Values


class Method(Protocol):
    """A way to choose codes and scales for evenly spaced values."""

    @property
    def name(self) -> str: ...

    @property
    def needs_hessian(self) -> bool:
        """Whether the method needs the layer's Hessian."""
        ...

    def compress(self, weight: Tensor, fmt: Values, hessian: Tensor | None) -> Encoded:
        """Compress a weight matrix.

        Args:
            weight: normalised (exporters.formats.scales), float32 [rows, cols].
            fmt: the number format.
            hessian: mean of x x^T over calibration tokens, [cols, cols]; None if it was not collected.

        Raises:
            SlmcError: the method needs a Hessian and there is none.
        """
        ...
