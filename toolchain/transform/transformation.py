"""A transformation of a model as a decision, and how decisions are carried out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from toolchain.model.catalog import LoadedModel
from toolchain.model.permutation_groups import PermutationGroup, permutation_groups
from toolchain.model.stream import residual_stream
from toolchain.model.tree import Layer, ModelTree
from toolchain.transform.rotation import (
    HeadRotation,
    StreamRotation,
    orthogonal,
    rotated,
    with_added_layer,
)

STREAM = "residual stream"
"""The place of the rotation that every block shares. Other places are paths of the layers that read what is turned."""


@dataclass(frozen=True)
class Transformation:
    """A rotation that was considered.

    place: what is turned. before, after: expected loss of the layers around it in as many bytes, nats per token.
    taken: whether the model has it.
    """

    place: str
    before: float
    after: float
    taken: bool


@dataclass(frozen=True)
class Rotations:
    """Rotations by what they turn."""

    stream: StreamRotation | None
    heads: tuple[HeadRotation, ...]

    def of(self, places: Iterable[str]) -> Rotations:
        """Only those of these places."""
        wanted = set(places)
        heads = tuple(head for head in self.heads if head.group.consumer in wanted)
        return Rotations(self.stream if STREAM in wanted else None, heads)

    def applied(self, model: LoadedModel) -> LoadedModel:
        """The model with them."""
        return rotated(model, self.stream, self.heads) if self.stream or self.heads else model


def possible_rotations(model: LoadedModel, seed: int) -> Rotations:
    """Every rotation that leaves the function of a model as it is. Each is drawn by the seed and its place alone."""
    stream = residual_stream(model)
    turned = None
    if stream is not None:
        turned = StreamRotation(stream, orthogonal(stream.width, _generator(seed, STREAM), stream.kind))
    return Rotations(turned, tuple(_head(c, seed) for c in permutation_groups(model) if c.linear))


def tree_after(model: LoadedModel, taken: Iterable[Transformation]) -> ModelTree:
    """The hierarchy of a model with transformations that were decided on."""
    stream = residual_stream(model) if any(t.taken and t.place == STREAM for t in taken) else None
    if stream is None or not stream.tied:
        return model.tree
    return with_added_layer(model.tree, Layer(stream.product, "linear", stream.width, stream.width, added=True))


def _head(group: PermutationGroup, seed: int) -> HeadRotation:
    generator = _generator(seed, group.consumer)
    return HeadRotation(group, torch.stack([orthogonal(group.width, generator) for _ in range(group.groups)]))


def _generator(seed: int, place: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{place}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
