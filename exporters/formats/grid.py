"""What formats share whose matrices are one part: values of one kind with a scale per group of inputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from exporters.formats.base import Encoded, Float32, Format
from exporters.formats.bits import UInt8
from exporters.formats.parts import Grid, Part, Piece, StoredPart


class GridFormat(Format):
    """A matrix on a grid: itself what exporters.formats.parts calls Values.

    A subclass says what Values are asked, and how codes are stored and decoded.
    """

    if TYPE_CHECKING:

        @property
        def group(self) -> int | None: ...

        @property
        def symmetric(self) -> bool: ...

        @property
        def levels(self) -> int: ...

        @property
        def default_zero(self) -> int: ...

        @property
        def table(self) -> Float32 | None: ...

        @property
        def least_share(self) -> float: ...

    def group_size(self, cols: int) -> int:
        """Codes per group, padding included."""
        assert self.group is not None
        return self.group

    def groups(self, cols: int) -> int:
        return -(-cols // self.group_size(cols))

    @abstractmethod
    def nearest_grid(self, weight: Float32) -> Grid:
        """A grid for a matrix [rows, cols] that suits its largest weights."""

    @abstractmethod
    def codes(self, weight: Float32, grid: Grid) -> UInt8:
        """The nearest code of every weight, [rows, cols]."""

    @abstractmethod
    def store(self, codes: UInt8, grid: Grid) -> Encoded:
        """Packed tensors of codes [rows, cols] on a grid; padding decodes to zero."""

    def nearest(self, weight: Float32) -> Encoded:
        grid = self.nearest_grid(weight)
        return self.store(self.codes(weight, grid), grid)

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(self),)

    def split(self, encoded: Encoded) -> tuple[StoredPart, ...]:
        zeros = encoded.packed["zeros"].astype(np.float32) if "zeros" in encoded.packed else None
        return (StoredPart(self, np.ones(encoded.shape, bool), encoded.packed["scales"].astype(np.float32), zeros),)

    def join(self, pieces: Sequence[Piece]) -> Encoded:
        ((_, codes, grid),) = pieces
        return self.store(codes, grid)

    def input_group(self, cols: int) -> int | None:
        return self.group_size(cols)
