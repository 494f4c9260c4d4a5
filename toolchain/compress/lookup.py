"""Values that are found by their names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from exporters.artifact.errors import SlmcError


class Named(Protocol):
    """A value with a name."""

    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


def named(values: Iterable[N], name: str, kind: str) -> N:
    """The value of that name.

    Raises:
        SlmcError: there is none; the text lists all names.
    """
    by_name = {value.name: value for value in values}
    if name not in by_name:
        raise SlmcError(f"unknown {kind} {name!r}; allowed are {', '.join(by_name)}")
    return by_name[name]
