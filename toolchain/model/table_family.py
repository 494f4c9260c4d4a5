"""What most families share."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, cast

from torch import nn

from toolchain.model.config import without_wrappers
from toolchain.model.family import LanguageModel, Shapes
from toolchain.model.options import Config, OptionTable
from toolchain.model.tree import ModelTree, grown_tree


class TableFamily:
    """A family with one table of options, whose checkpoints are known by the names of a few tensors.

    A subclass adds `build` (toolchain.model.family.Family), and `rename` where its names need more.

    blocks, head: paths of the list of blocks, and of the linear layer that gives the logits, in the model. spikes:
    whether values pass thresholds, so that a small error may turn a spike on or off: then inputs of products stay as
    they are unless the user asks for 8 bits, and parity is judged by how few tokens differ.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    options: ClassVar[OptionTable]
    tensors: ClassVar[frozenset[str]]
    """Which every checkpoint of the family has, as renamed."""
    classifies: ClassVar[bool] = False
    blocks: ClassVar[str] = "layers"
    head: ClassVar[str] = "lm_head"
    spikes: ClassVar[bool] = False

    def rename(self, name: str) -> str | None:
        return without_wrappers(name)

    def fits(self, shapes: Shapes) -> bool:
        return self.tensors <= set(shapes)

    def table(self, config: Config) -> OptionTable:
        return self.options

    def tree(self, model: nn.Module) -> ModelTree:
        """The hierarchy of a model by its modules."""
        states = cast(LanguageModel, model).state_specs()
        tree = grown_tree(self.name, model, states, blocks=self.blocks, head=self.head)
        return dataclasses.replace(tree, spikes=self.spikes)
