"""Classifiers: what a model's layers say of a text's tokens, pooled over the text, and one score per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from exporters.states import StateSpec

POOLINGS = ("mean", "last", "first")
"""What a text's tokens become: their mean, or the last or first of them ([CLS] of an encoder)."""

WEIGHT = "classifier.weight"
"""The tensor [classes, hidden_size] of a classifier, as SpikeGPT's authors and Hugging Face name it."""


@dataclass(frozen=True)
class Classes:
    """The names of the classes in the order of their scores, the pooling, and whether scores have a bias."""

    labels: tuple[str, ...]
    pooling: str = "mean"
    bias: bool = False


class Classifier(nn.Module):
    """Makes a classifier of a model whose `hidden(tokens, state)` gives what a head reads; stands before it among the
    bases of a class, which calls `classify` after its own parts are there.

        scores[b] = W pool_t(hidden[b, t]) + bias

    Scores are those of all tokens so far: what the pooling knows of them is carried like any state, so that a text in
    one call, in chunks or token by token has the same scores to rounding.
    """

    classes: Classes
    hidden: Callable[[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]]

    whole_texts: bool = False
    """Whether a text must be read in one call, because later tokens change what earlier ones say (encoders)."""

    def classify(self, classes: Classes, hidden_size: int, *, unused: str | None = None) -> None:
        """Put the classes in the place of the language model's head, the module `unused`."""
        if unused is not None:
            delattr(self, unused)
        self.classes, self.hidden_size, self.unused = classes, hidden_size, unused
        self.classifier = nn.Linear(hidden_size, len(classes.labels), bias=classes.bias)

    def pool_specs(self) -> list[StateSpec]:
        """What the pooling carries: the tokens so far, and their sum or the first of them."""
        if self.whole_texts or self.classes.pooling == "last":
            return []
        return [StateSpec(f"pooled.{self.classes.pooling}", (self.hidden_size,)), StateSpec("pooled.tokens", (1,))]

    def state_specs(self) -> list[StateSpec]:
        """The model's own states, then the pooling's."""
        return [*super().state_specs(), *self.pool_specs()]  # type: ignore[misc]

    def forward(self, tokens: Tensor, state: list[Tensor], mask: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """tokens [batch, time] -> scores [batch, 1, classes], and the state after the last token.

        Args:
            mask: bool [batch, time], which tokens a mean is of, where shorter texts are padded at their ends; all of
                them if it is not given, padding included, as SpikeGPT's authors average.
        """
        own = len(state) - len(self.pool_specs())
        hidden, after = self.hidden(tokens, state[:own])
        pooled, pooled_after = self._pooled(hidden, state[own:], mask)
        return self.classifier(pooled)[:, None], [*after, *pooled_after]

    def _pooled(self, hidden: Tensor, state: list[Tensor], mask: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """hidden [batch, time, hidden_size] -> [batch, hidden_size], and what is carried."""
        if self.classes.pooling == "last":
            return hidden[:, -1], []
        counted = torch.ones_like(hidden[:, :, 0]) if mask is None else mask.to(hidden.dtype)
        first = self.classes.pooling == "first"
        found = hidden[:, 0] if first else (hidden * counted[:, :, None]).sum(1)
        tokens = counted.sum(1)[:, None]
        if state:
            before, count = state
            found = torch.where(count > 0, before, found) if first else before + found
            tokens = count + tokens
        after = [found, tokens] if state else []
        return found if first else found / tokens, after


def classes_of(
    shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any], pooling: str = "mean"
) -> Classes | None:
    """The classes of a checkpoint; None if it is no classifier.

    Names come from `labels` (a list) or Hugging Face's `id2label`, and are 0, 1, ... without either.

    Args:
        pooling: what the family's classifiers read where the config does not say.

    Raises:
        SlmcError: the config and the weights disagree, or the pooling is none of POOLINGS.
    """
    shape = shapes.get(WEIGHT)
    if shape is None:
        if "labels" in config or "pooling" in config:
            raise SlmcError(f"config.json describes a classifier, but the weights have no {WEIGHT}; copy it again")
        return None
    if len(shape) != 2 or shape[0] < 2:
        raise SlmcError(f"{WEIGHT} has shape {list(shape)}, expected [classes, hidden_size] of two classes or more")
    pooling = config.get("pooling", pooling)
    if pooling not in POOLINGS:
        raise SlmcError(f"config.json: pooling is {pooling!r}; allowed are {', '.join(POOLINGS)}")
    return Classes(_labels(config, shape[0]), pooling, WEIGHT.replace("weight", "bias") in shapes)


def _labels(config: Mapping[str, Any], count: int) -> tuple[str, ...]:
    named = config.get("id2label")
    found = config.get("labels", [named.get(str(i)) for i in range(len(named))] if isinstance(named, dict) else None)
    if found is None:
        return tuple(map(str, range(count)))
    fine = isinstance(found, list) and all(isinstance(x, str) and x.strip() == x != "" for x in found)
    if not fine or len(set(found)) != len(found):
        raise SlmcError(f"config.json: labels are {found!r}; a list of different names is needed, one per class")
    if len(found) != count:
        raise SlmcError(f"config.json: {len(found)} labels, but {WEIGHT} has {count} rows; give one per class")
    return tuple(found)
