"""Tensors of a checkpoint under the decoder's own names: renamed, taken apart where they are fused, put together."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.model.checkpoint import Checkpoint
from toolchain.model.config import without_wrappers


@dataclass(frozen=True)
class Heads:
    """Heads of queries, and of keys and values."""

    heads: int
    groups: int


Rule = Callable[[Sequence[Tensor], Heads], Sequence[Tensor]]
"""Tensors of one meaning, in order of the numbers in their names, to the decoder's."""


@dataclass(frozen=True)
class Part:
    """What becomes of tensors whose whole name fits a pattern: `names` are what it makes of each, as re.Match.expand
    reads them; tensors with the same `names` are put together."""

    pattern: str
    names: tuple[str, ...]
    rule: Rule


def thirds(sources: Sequence[Tensor], heads: Heads) -> Sequence[Tensor]:
    """Queries, keys and values of GPT-2: columns of a weight [inputs, outputs], or a bias."""
    return [part.contiguous() for part in sources[0].t().chunk(3)]


def transposed(sources: Sequence[Tensor], heads: Heads) -> Sequence[Tensor]:
    """A weight [inputs, outputs]."""
    return [sources[0].t().contiguous()]


def halves(sources: Sequence[Tensor], heads: Heads) -> Sequence[Tensor]:
    """Gate and up of a fused MLP."""
    return sources[0].chunk(2)


def queries_keys_values(sources: Sequence[Tensor], heads: Heads) -> Sequence[Tensor]:
    """Rows of all queries, then keys, then values."""
    parts = sources[0].reshape(heads.heads + 2 * heads.groups, -1, *sources[0].shape[1:])
    at = (heads.heads, heads.heads + heads.groups)
    return [part.flatten(0, 1) for part in parts.tensor_split(at)]


def by_heads(sources: Sequence[Tensor], heads: Heads) -> Sequence[Tensor]:
    """Rows of head after head, each with its queries, keys and values."""
    return [part.flatten(0, 1) for part in sources[0].reshape(heads.heads, 3, -1, *sources[0].shape[1:]).unbind(1)]


def one_above(sources: Sequence[Tensor], heads: Heads) -> Sequence[Tensor]:
    """The weight of a norm that is stored as w and multiplies by 1 + w, in float32 as it computes."""
    return [1 + sources[0].float()]


def stacked_heads(sources: Sequence[Tensor], heads: Heads) -> Sequence[Tensor]:
    """One row per head."""
    return [torch.stack(tuple(sources))]


def renamed(checkpoint: Checkpoint, names: Sequence[tuple[str, str]]) -> Checkpoint:
    """The checkpoint without wrappers' prefixes and with patterns in names replaced; an empty name drops a tensor.

    Raises:
        SlmcError: two tensors get one name.
    """
    new: dict[str, str] = {}
    for old in checkpoint.tensors:
        name = without_wrappers(old)
        for pattern, put in names:
            name = re.sub(pattern, put, name)
        if name and new.setdefault(name, old) != old:
            raise SlmcError(f"{checkpoint.path}: {new[name]} and {old} are the same tensor, {name}; remove one of them")
    tensors = {name: checkpoint.tensors[old] for name, old in new.items()}
    places = {name: checkpoint.places[old] for name, old in new.items() if old in checkpoint.places}
    return dataclasses.replace(checkpoint, tensors=tensors, places=places)


def apart(checkpoint: Checkpoint, part: Part, heads: Heads) -> Checkpoint:
    """The checkpoint with the tensors that fit a part's pattern as its rule makes them.

    Raises:
        SlmcError: a tensor has not the shape for it.
    """
    fused: dict[tuple[str, ...], list[str]] = {}
    for name in checkpoint.tensors:
        if found := re.fullmatch(part.pattern, name):
            fused.setdefault(tuple(found.expand(new) for new in part.names), []).append(name)
    if not fused:
        return checkpoint
    gone = {name for names in fused.values() for name in names}
    tensors = {name: t for name, t in checkpoint.tensors.items() if name not in gone}
    places = {name: read for name, read in checkpoint.places.items() if name not in gone}
    for new, names in fused.items():
        ordered = sorted(names, key=lambda name: [int(n) for n in re.findall(r"[0-9]+", name)])
        made = _made(checkpoint, part.rule, ordered, heads)
        tensors |= dict(zip(new, made, strict=True))
        if all(name in checkpoint.places for name in ordered):
            places |= {n: partial(_read, checkpoint, part.rule, ordered, heads, i) for i, n in enumerate(new)}
    return dataclasses.replace(checkpoint, tensors=tensors, places=places)


def _made(checkpoint: Checkpoint, rule: Rule, names: Sequence[str], heads: Heads) -> Sequence[Tensor]:
    sources = [checkpoint.tensors[name] for name in names]
    try:
        return rule(sources, heads)
    except RuntimeError as error:  # torch, of shapes that do not divide
        shapes = ", ".join(str(list(source.shape)) for source in sources[:2])
        raise SlmcError(
            f"{checkpoint.path}: {names[0]} has shape {shapes}, which {heads.heads} heads in {heads.groups} groups "
            "cannot divide; the weights are not of this model type, or config.json is of another model"
        ) from error


def _read(checkpoint: Checkpoint, rule: Rule, names: Sequence[str], heads: Heads, which: int) -> Tensor:
    """One of what a rule makes, from tensors that are read anew."""
    return rule([checkpoint.places[name]() for name in names], heads)[which]
