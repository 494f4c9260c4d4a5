"""JSON as dataclasses, strictly: a device has no library that does it."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar

from exporters.artifact.errors import SlmcError

T = TypeVar("T")


def parse(kind: Any, value: Any, where: str) -> Any:
    """`value`, as JSON gave it, as the type `kind`: dataclasses, tuples, dicts, unions with None, scalars.

    Raises:
        SlmcError: a field is missing, unknown, or of another type; the text names it.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inner = next(a for a in args if a is not type(None))
        return None if value is None else parse(inner, value, where)
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(typing.cast(type, kind), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise SlmcError(f"{where}: expected a list, found {type(value).__name__}")
        return tuple(parse(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise SlmcError(f"{where}: expected an object, found {type(value).__name__}")
        return {str(k): parse(args[1], item, f"{where}.{k}") for k, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise SlmcError(f"{where}: expected float, found a number too large for one") from error
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise SlmcError(f"{where}: expected {kind.__name__}, found {value!r}")
    return value


def _parse_dataclass(kind: type[T], value: Any, where: str) -> T:
    if not isinstance(value, dict):
        raise SlmcError(f"{where}: expected an object, found {type(value).__name__}")
    hints = typing.get_type_hints(kind)
    optional = {f.name for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}  # type: ignore[arg-type]
    missing, unknown = sorted(hints.keys() - value.keys() - optional), sorted(value.keys() - hints.keys())
    if missing or unknown:
        found = f"missing {', '.join(missing)}" if missing else f"unknown {', '.join(unknown)}"
        raise SlmcError(f"{where}: {found}; write the artifact again with this version of slmc")
    return kind(**{name: parse(hint, value[name], f"{where}.{name}") for name, hint in hints.items() if name in value})
