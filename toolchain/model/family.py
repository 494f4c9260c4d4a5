"""What a model family is: how its checkpoint is recognised, sized and built, and what every model can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from toolchain.model.tree import ModelTree


class LanguageModel(Protocol):
    """A causal language model with carried state; also a torch module."""

    def state_specs(self) -> list[tuple[str, int, float]]:
        """Name, width and initial value of every carried state, in order; each is float [batch, width]."""
        ...

    def initial_state(self, batch: int = 1) -> list[Tensor]: ...

    def __call__(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """tokens int64 [batch, time], state -> logits [batch, time, vocabulary], state."""
        ...


class Family(Protocol):
    """One architecture, however large."""

    @property
    def name(self) -> str: ...

    def recognises(self, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> bool:
        """Whether a checkpoint with these tensors belongs to the family."""
        ...

    def build(self, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> nn.Module:
        """An empty LanguageModel of the right size, its parameters named as in the checkpoint.

        Raises:
            SlmcError: tensors are missing or of the wrong shape, or the config says what is not supported.
        """
        ...

    def tree(self, model: nn.Module) -> ModelTree: ...
