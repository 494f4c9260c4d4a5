"""Checks that a memory limit can be met at all, and says what would fit if it cannot."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from exporters.artifact.errors import SlmcError
from targets.device.quantities import parse_bytes
from toolchain.compress.recipe import LayerConfig
from toolchain.model.cache import CachedModel
from toolchain.model.catalog import LoadedModel
from toolchain.search.problem import Problem

LARGE_SHARE = 0.25
"""The key-value cache is mentioned if it takes at least this share of the smallest size."""

CONTEXT_STEP = 16
"""Suggested contexts are multiples of this."""

_OPTION = "--max-memory"


def check_room(
    asked: str, problem: Problem, model: LoadedModel, every_option: Callable[[], Mapping[str, tuple[LayerConfig, ...]]]
) -> None:
    """Refuse a limit below the smallest possible size, and suggest options that would meet it.

    Args:
        asked: the limit as the user wrote it.
        every_option: the options of every layer if all formats are allowed.

    Raises:
        SlmcError: the limit cannot be met.
    """
    whole, smallest, limit = problem.tree.bytes_fp32, problem.smallest_bytes, problem.constraints.max_bytes
    if limit is None or limit >= smallest:
        return
    options = every_option()
    least = sum(min(problem.layer_bytes(x, config) for config in options[x.path]) for x in problem.tree.layers)
    least += problem.tree.fixed_bytes
    advice = _cache_advice(asked, problem, model)
    if least <= limit:
        advice.append(f"with all formats (--formats '*') the smallest size is {least} bytes")
    cache, tokens = problem.tree.stored_state_bytes / smallest, model.forward.context
    held = isinstance(model.module, CachedModel) and cache >= LARGE_SHARE
    raise SlmcError(
        f"{_OPTION} {asked}: {limit} bytes ({limit / whole:.2%} of fp32) is below the smallest possible, {smallest} "
        f"bytes ({smallest / whole:.2%})"
        + (f", {cache:.0%} of which is the key-value cache of {tokens} tokens" if held else "")
        + "".join(f"; {text}" for text in advice)
        + f"; or give at least {_OPTION} {smallest}B"
    )


def _cache_advice(asked: str, problem: Problem, model: LoadedModel) -> list[str]:
    """The largest cache that fits, as it is stored and in 8 bits; nothing for models without a cache."""
    module, context = model.module, model.forward.context
    if not isinstance(module, CachedModel) or context is None:
        return []
    layers = problem.smallest_bytes - problem.tree.stored_state_bytes

    def fits(tokens: int, kind: str) -> bool:
        whole = 4 * problem.tree.params + module.carried_bytes(tokens, "fp32")
        return layers + module.carried_bytes(tokens, kind) <= parse_bytes(asked, _OPTION, whole)

    found = []
    for kind in dict.fromkeys((model.kv_cache, "int8")):
        option = "" if kind == model.kv_cache else f" --kv-cache {kind}"
        tokens = most_tokens(functools.partial(fits, kind=kind), context)
        if tokens == context:
            found.append(option.strip())
        elif tokens >= CONTEXT_STEP:
            found.append(f"--context {tokens // CONTEXT_STEP * CONTEXT_STEP}{option}")
    return [f"{' or '.join(found)} would fit"] if found else []


def most_tokens(fits: Callable[[int], bool], most: int) -> int:
    """The largest number of tokens that fits, at most `most`; 0 if none does. Fewer tokens must never need more."""
    if fits(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
