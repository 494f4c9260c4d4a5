"""What a model family is: how its checkpoint is recognised, sized and built, and what every model can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from exporters.states import StateSpec
from toolchain.model.options import Config, OptionTable
from toolchain.model.tree import ModelTree

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor names to shapes."""

CACHE_FORMATS = ("fp32", "fp16", "int8")
"""How keys and values may be stored in a cache."""


@dataclass(frozen=True)
class ModelOptions:
    """What the user may say about a model. context: tokens in the key-value cache, None for the family's own choice;
    kv_cache: how the compressed model stores it, one of CACHE_FORMATS; family: name of the family, None to find it."""

    context: int | None = None
    kv_cache: str = "fp32"
    family: str | None = None


class LanguageModel(Protocol):
    """A causal language model with carried state; also a torch module."""

    @property
    def context(self) -> int | None:
        """The most tokens of one text that the states have room for; None without a limit."""
        ...

    def state_specs(self) -> list[StateSpec]:
        """Every carried state, in order."""
        ...

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        """The states before the first token, each [batch, *shape]."""
        ...

    def __call__(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens int64 [batch, time], state -> logits [batch, time, vocabulary], state."""
        ...


class Family(Protocol):
    """One architecture, however large."""

    @property
    def name(self) -> str: ...

    @property
    def model_types(self) -> tuple[str, ...]:
        """What a config.json calls it in `model_type`."""
        ...

    @property
    def classifies(self) -> bool:
        """Whether it has classifiers."""
        ...

    def rename(self, name: str) -> str | None:
        """The model's own name of a checkpoint's tensor, of which several are common; None if it is of no use."""
        ...

    def fits(self, shapes: Shapes) -> bool:
        """Whether a checkpoint with these tensors, renamed, may belong to the family."""
        ...

    def table(self, config: Config) -> OptionTable:
        """The options that a config.json of the family may have."""
        ...

    def build(self, shapes: Shapes, config: Config, options: ModelOptions) -> nn.Module:
        """An empty LanguageModel of the right size, its parameters named as `rename` says.

        Raises:
            SlmcError: tensors are missing or of the wrong shape, or the config says what is not supported.
        """
        ...

    def tree(self, model: nn.Module) -> ModelTree: ...
