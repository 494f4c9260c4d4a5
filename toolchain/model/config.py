"""Options of a Hugging Face config.json, read with what is supported in hand."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from exporters.errors import SlmcError
from toolchain.model.family import Shapes

Config = Mapping[str, Any]

_WRAPPERS = re.compile(
    r"^(?:(?:module|_orig_mod|_fsdp_wrapped_module|base_model|language_model|model|transformer|gpt_neox)\.)+"
)


def without_wrappers(name: str) -> str:
    """A tensor's name without the prefixes that wrapping modules leave: model., transformer., module. and so on."""
    return _WRAPPERS.sub("", name)


def number(config: Config, key: str, default: float | None = None) -> float:
    """A finite positive number.

    Raises:
        SlmcError: it is missing and has no default, or is no such number.
    """
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        found = "missing" if key not in config else repr(value)
        raise SlmcError(f"config.json: {key} is {found}; a number above 0 is needed")
    return value


def whole(config: Config, key: str, default: int | None = None) -> int:
    """A positive whole number.

    Raises:
        SlmcError: it is missing and has no default, or is no such number.
    """
    value = number(config, key, default)
    if not isinstance(value, int):
        raise SlmcError(f"config.json: {key} is {value!r}; a whole number above 0 is needed")
    return value


def flag(config: Config, key: str, default: bool) -> bool:
    """True or false.

    Raises:
        SlmcError: anything else.
    """
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise SlmcError(f"config.json: {key} is {value!r}; true or false is needed")
    return value


def only(config: Config, key: str, *allowed: Any) -> None:
    """Refuse an option whose value is not among those that the family's forward computes; absent is allowed.

    Raises:
        SlmcError: with what was found and what is supported.
    """
    if key in config and config[key] not in allowed:
        listed = ", ".join("none" if a is None else repr(a) for a in allowed)
        raise SlmcError(f"config.json: {key} is {config[key]!r}, which is not supported; supported: {listed}")


def count_layers(shapes: Shapes, pattern: str) -> int:
    """How many numbered layers the weights have; the pattern has one group.

    Raises:
        SlmcError: there are gaps.
    """
    indices = {int(m[1]) for m in (re.match(pattern, name) for name in shapes) if m}
    if indices != set(range(len(indices))):
        raise SlmcError(f"the weights have layers {sorted(indices)[:8]}; expected 0, 1, 2 ... without gaps")
    return len(indices)


def agree(config: Config, key: str, size: int) -> None:
    """Refuse a config that contradicts the weights.

    Raises:
        SlmcError: it does.
    """
    if key in config and config[key] != size:
        raise SlmcError(f"config.json: {key} is {config[key]!r}, but the weights have {size}")


def matrix(shapes: Shapes, name: str) -> tuple[int, int]:
    """Rows and columns of a tensor that sizes come from.

    Raises:
        SlmcError: it is missing, or no matrix.
    """
    shape = shapes.get(name)
    if shape is None:
        raise SlmcError(f"the weights have no {name}; copy the model again")
    if len(shape) != 2 or 0 in shape:
        raise SlmcError(f"{name} has shape {list(shape)}, expected a matrix")
    return shape[0], shape[1]
