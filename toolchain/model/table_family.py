"""What most families share."""

from __future__ import annotations

from typing import ClassVar

from toolchain.model.config import without_wrappers
from toolchain.model.family import Shapes
from toolchain.model.options import Config, OptionTable


class TableFamily:
    """A family with one table of options, whose checkpoints are known by the names of a few tensors.

    A subclass adds `build` and `tree` (toolchain.model.family.Family), and `rename` where its names need more.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    options: ClassVar[OptionTable]
    tensors: ClassVar[frozenset[str]]
    """Which every checkpoint of the family has, as renamed."""
    classifies: ClassVar[bool] = False

    def rename(self, name: str) -> str | None:
        return without_wrappers(name)

    def fits(self, shapes: Shapes) -> bool:
        return self.tensors <= set(shapes)

    def table(self, config: Config) -> OptionTable:
        return self.options
