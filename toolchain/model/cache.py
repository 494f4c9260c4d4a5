"""What models with key-value caches share: their states, and attention that reads and writes them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from exporters.ops.attention import cached_attention, cached_attention_half, cached_attention_int8, hadamard_block
from exporters.states import StateSpec
from toolchain.model.family import CACHE_FORMATS, ModelOptions

LARGEST_DEFAULT = 2048
"""Without --context a cache has room for what the model was trained on, but for no more tokens than this."""


@dataclass(frozen=True)
class CacheShape:
    """Sizes of all caches: per layer keys and values [groups, context, width]."""

    layers: int
    groups: int
    context: int
    width: int


@dataclass(frozen=True)
class Rotation:
    """Rotary positions of base theta on the first `width` channels of a head, 0 for all; none of it if theta is 0."""

    theta: float = 0.0
    width: int = 0


Turn = tuple[Tensor, Tensor]
"""Cosines and sines of the new tokens' angles, [batch, time, channels / 2], or with an axis for heads in between."""


@dataclass(frozen=True)
class Scores:
    """What becomes of query times key: times `scale` (0: 1 / sqrt(d)), bent to cap tanh(score / cap) (0: not), and
    seen by a token among the last `window` tokens alone, itself one of them (0: by all after it)."""

    scale: float = 0.0
    cap: float = 0.0
    window: int = 0


class KeyValueModel(nn.Module):
    """A language model that keeps keys and values; kv_cache: how, one of cache_formats."""

    cache_formats: tuple[str, ...] = CACHE_FORMATS
    kv_cache = "fp32"


class CachedModel(KeyValueModel):
    """A language model whose states are the number of tokens read and the keys and values of every layer."""

    def __init__(self, cache: CacheShape) -> None:
        super().__init__()
        self.cache = cache

    @property
    def context(self) -> int | None:
        """Tokens that the caches have room for."""
        return self.cache.context

    def state_specs(self) -> list[StateSpec]:
        """The number of tokens read, int64 [1]; then of every layer its keys, values, and the scales of 8-bit codes."""
        shape = (self.cache.groups, self.cache.context, self.cache.width)
        dtype = {"fp32": "float32", "fp16": "float16", "int8": "int8"}[self.kv_cache]
        kinds: list[tuple[str, tuple[int, ...], str]] = [("keys", shape, dtype), ("values", shape, dtype)]
        if self.kv_cache == "int8":
            kinds += [("key_scales", shape[:2], "float32"), ("value_scales", shape[:2], "float32")]
        caches = (
            StateSpec(f"layers.{i}.{name}", dims, 0.0, kind, in_place=True)
            for i in range(self.cache.layers)
            for name, dims, kind in kinds
        )
        return [StateSpec("position", (1,), 0.0, "int64"), *caches]

    def carried_bytes(self, context: int, kv_cache: str) -> int:
        """Bytes of all states if the caches had room for so many tokens and were stored so."""
        twin = copy.copy(self)
        twin.cache, twin.kv_cache = dataclasses.replace(self.cache, context=context), kv_cache
        return sum(spec.nbytes for spec in twin.state_specs())

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        """The states before the first token, each [batch, *shape]."""
        return [torch.zeros((batch, *s.shape), dtype=getattr(torch, s.dtype)) for s in self.state_specs()]

    def per_layer(self, state: list[Tensor]) -> list[list[Tensor]]:
        """The caches of every layer."""
        size = (len(state) - 1) // self.cache.layers
        return [state[1 + i * size : 1 + (i + 1) * size] for i in range(self.cache.layers)]


_OPERATORS: dict[torch.dtype, Callable[..., tuple[Tensor, ...]]] = {
    torch.float32: cached_attention, torch.float64: cached_attention, torch.float16: cached_attention_half,
    torch.int8: cached_attention_int8,
}  # fmt: skip
"""By the type of the keys in the cache."""


def attend(
    q: Tensor, k: Tensor, v: Tensor, caches: list[Tensor], position: Tensor, heads: int, rotation: Rotation,
    scores: Scores = Scores(), turn: Turn | None = None,
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """Attention of new tokens over all so far, through caches of either kind; see exporters.ops.attention.

    Keys and values of 8 bits are mixed by a Hadamard matrix before they are rounded.

    turn: cosines and sines of the new tokens' angles, [batch, time, rotation.width / 2], in place of those of a theta.
    """
    rotate = float(rotation.theta > 0 or turn is not None)
    cos, sin = turn or (None, None)
    ints: tuple[int, ...] = (heads, scores.window, rotation.width)
    floats = (rotation.theta or 1.0, rotate, scores.scale, scores.cap)
    if caches[0].dtype == torch.int8:
        ints = (*ints, hadamard_block(caches[0].shape[-1]))
    operator = _OPERATORS[caches[0].dtype]
    y, *after = operator(q, k, v, *caches, position, cos, sin, *ints, *floats)
    return y, list(after)


def context_for(options: ModelOptions, trained: int) -> int:
    """Tokens in the cache of a model that was trained on so many.

    Raises:
        SlmcError: the user asks for more than that, or for none.
    """
    if options.context is None:
        return min(trained, LARGEST_DEFAULT)
    if not 1 <= options.context <= trained:
        raise SlmcError(f"--context {options.context}: this model reads 1 to {trained} tokens at once")
    return options.context
