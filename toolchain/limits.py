"""How users write quantities: bytes as 3MB or 15%, shares as 1%, times as 5ms or 10m."""

from __future__ import annotations

import re

from exporters.errors import SlmcError

_BYTE_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SECOND_UNITS = {"US": 1e-6, "MS": 1e-3, "S": 1.0, "M": 60.0, "H": 3600.0}
_QUANTITY = re.compile(r"\s*(\d{1,18}(?:\.\d{1,18})?(?:[eE][+-]?\d{1,2})?)\s*([A-Za-z%]*)\s*", re.ASCII)


def _split(text: str, option: str, allowed: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text)
    if not match:
        raise SlmcError(f"{option}: {text!r} is no quantity; allowed is {allowed}")
    return float(match[1]), match[2].upper()


def _said(unit: str) -> str:
    return f"the unit {unit!r}" if unit else "no unit"


def parse_bytes(text: str, option: str, whole_bytes: int) -> int:
    """Bytes of '3MB', '500KiB' or '15%' (of `whole_bytes`).

    Raises:
        SlmcError: anything else, or zero.
    """
    allowed = (
        f"a number with a unit ({', '.join(('B', 'KB', 'MB', 'GB', 'KiB', 'MiB', 'GiB'))}) or percent, as 3MB or 15%"
    )
    value, unit = _split(text, option, allowed)
    if unit != "%" and unit not in _BYTE_UNITS:
        raise SlmcError(f"{option}: {text!r} has {_said(unit)}; allowed is {allowed}")
    result = int(value / 100 * whole_bytes) if unit == "%" else int(value * _BYTE_UNITS[unit])
    if result <= 0:
        raise SlmcError(f"{option}: {text!r} leaves no bytes at all; give more")
    return result


def parse_share(text: str, option: str) -> float:
    """0.01 of '1%' or of '0.01'.

    Raises:
        SlmcError: anything else.
    """
    value, unit = _split(text, option, "a share such as 1% or 0.01")
    if unit not in ("%", ""):
        raise SlmcError(f"{option}: {text!r} has {_said(unit)}; allowed is a share such as 1% or 0.01")
    return value / 100 if unit == "%" else value


def parse_seconds(text: str, option: str) -> float:
    """Seconds of '5ms', '90s', '10m', '2h'; a bare number is seconds.

    Raises:
        SlmcError: anything else, or zero.
    """
    allowed = "a time with a unit (us, ms, s, m, h), as 5ms or 10m"
    value, unit = _split(text, option, allowed)
    if unit and unit not in _SECOND_UNITS:
        raise SlmcError(f"{option}: {text!r} has {_said(unit)}; allowed is {allowed}")
    if value == 0:
        raise SlmcError(f"{option}: {text!r} is no time at all; give more")
    return value * _SECOND_UNITS.get(unit, 1.0)
