"""Layers named by a regular expression of the user's."""

from __future__ import annotations

import re
from collections.abc import Iterable

from exporters.artifact.errors import SlmcError
from toolchain.model.tree import Layer

LONGEST_PATTERN = 1000
"""Characters: thousands of brackets end Python's own reader of expressions."""


def layers_named(pattern: str, layers: Iterable[Layer], option: str) -> list[Layer]:
    """The layers in whose path a regular expression is found.

    Raises:
        SlmcError: it is none, or too long.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise SlmcError(
            f"{option} {pattern[:40]!r}...: {len(pattern)} characters, at most {LONGEST_PATTERN} are read; give several"
        )
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise SlmcError(f"{option} {pattern[:80]!r}: no regular expression ({error}); see 'slmc inspect'") from error
    return [layer for layer in layers if compiled.search(layer.path)]
