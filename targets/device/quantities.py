"""How quantities are read and written, everywhere alike: bytes, shares and times.

A number that a user gives needs its unit, whichever option it is for: `--max-drop 1` would be 100 % to one reader
and 1 % to another.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from exporters.artifact.errors import SlmcError

NOT_MEASURED = "not measured"

Units = Mapping[str, int | Fraction]
"""What one of each unit is in bytes, seconds, or as a share."""

_BYTES: Final[Units] = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_SECONDS: Final[Units] = {
    "us": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": 1,
    "m": 60,
    "h": 3600,
}
_LARGEST_BYTES: Final = 2**63 - 1
_LARGEST_SECONDS: Final = 10**9
_LARGEST_SHARE: Final = 10**6
_NUMBER = re.compile(r"\s*(\d{1,18}(?:\.\d{0,18})?(?:[eE][+-]?\d{1,2})?)\s*([A-Za-z%]*)\s*", re.ASCII)


@dataclass(frozen=True)
class Kind:
    """What a quantity may be written as.

    units: read in any case, as 3mb. allowed: how messages put them. largest: the most that a quantity may be.
    percent: whether percent of the fp32 model are bytes too. zero: whether nothing is a quantity.
    """

    units: Units
    allowed: str
    largest: int
    percent: bool = False
    zero: bool = False


BYTES: Final = Kind(_BYTES, f"a number with a unit ({', '.join(_BYTES)}), as 64MB", _LARGEST_BYTES)
MEMORY: Final = Kind(
    _BYTES,
    f"a number with a unit ({', '.join(_BYTES)}) or percent of the fp32 model, as 3MB or 15%",
    _LARGEST_BYTES,
    percent=True,
)
SHARE: Final = Kind({"%": Fraction(1, 100)}, "percent, as 1%", _LARGEST_SHARE, zero=True)
TIME: Final = Kind(_SECONDS, f"a number with a unit ({', '.join(_SECONDS)}), as 5ms or 10m", _LARGEST_SECONDS)

OPTIONS: Final[Mapping[str, Kind]] = {
    "max_memory": MEMORY,
    "max_rss": MEMORY,
    "max_build_memory": BYTES,
    "limit_memory": BYTES,
    "worker_memory": BYTES,
    "max_drop": SHARE,
    "tolerance": SHARE,
    "max_latency": TIME,
    "max_time": TIME,
}
"""Every option that takes a quantity, by its name in a configuration."""


def parse_bytes(text: str, option: str, whole_bytes: int | None = None) -> int:
    """Bytes of '3MB', '500KiB' or, if there is a whole, '15%' of it; rounded down.

    Raises:
        SlmcError: anything else, zero, or more than an int64 holds.
    """
    kind = BYTES if whole_bytes is None else MEMORY
    value, unit = _parsed(text, option, kind)
    size = int(value * (whole_bytes or 0) / 100 if unit == "%" else value)
    if size == 0:
        raise SlmcError(f"{option}: {text!r} is less than a byte; give more")
    if size > kind.largest:
        raise SlmcError(f"{option}: {text!r} is too large; give less")
    return size


def parse_share(text: str, option: str) -> float:
    """0.01 of '1%'.

    Raises:
        SlmcError: anything else, a number without '%' too.
    """
    return float(_parsed(text, option, SHARE)[0])


def parse_seconds(text: str, option: str) -> float:
    """Seconds of '5ms', '90s', '10m', '2h'.

    Raises:
        SlmcError: anything else, or zero.
    """
    return float(_parsed(text, option, TIME)[0])


def check(text: str, name: str) -> None:
    """Refuse what cannot be a quantity of an option of `OPTIONS`, before anything else is known.

    Raises:
        SlmcError: it is none.
    """
    _parsed(text, "--" + name.replace("_", "-"), OPTIONS[name])


def _parsed(text: str, option: str, kind: Kind) -> tuple[Fraction, str]:
    """The value in bytes, seconds, as a share, or in percent if they are of something; and its unit."""
    match = _NUMBER.fullmatch(text)
    if not match:
        raise SlmcError(f"{option}: {text!r} is not a quantity; give {kind.allowed}")
    sizes = {unit.upper(): size for unit, size in kind.units.items()} | ({"%": Fraction(1)} if kind.percent else {})
    unit = match[2].upper()
    if not unit:
        raise SlmcError(f"{option}: {text!r} has no unit; give {kind.allowed}")
    if unit not in sizes:
        raise SlmcError(f"{option}: {text!r} has the unit {match[2]!r}; give {kind.allowed}")
    value = Fraction(match[1]) * sizes[unit]
    if value > kind.largest:
        raise SlmcError(f"{option}: {text!r} is too large; give less")
    if value == 0 and not kind.zero:
        raise SlmcError(f"{option}: {text!r} is nothing at all; give more")
    return value, unit


_BYTE_UNITS = ("bytes", "byte", "b")
_SHARE_UNITS = ("relative", "ratio", "fraction", "share", "")
_PERCENT_UNITS = ("%", "percent")


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, without exponent between 0.0001 and a million: 0.00123, 12.3, 1,234."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("infinite" if value > 0 else "minus infinite")
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if exponent < -4 or exponent >= 6:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def scaled(value: float, unit: str, digits: int = 3) -> str:
    """A number with a decimal prefix: scaled(4_130_000, "B") is 4.13 MB; below a thousand it is written whole."""
    prefixes = ("", "k", "M", "G", "T")
    size, power = value, 0
    while abs(float(f"{size:.{digits - 1}e}")) >= 1000 and power < len(prefixes) - 1 and math.isfinite(size):
        size, power = size / 1000, power + 1
    text = f"{size:.0f}" if power == 0 and math.isfinite(size) else significant(size, digits)
    return f"{text} {prefixes[power]}{unit}"


def bytes_text(count: float) -> str:
    """Decimal units, as the command line reads them: 2.08 MB is 2 080 000 bytes."""
    return scaled(count, "B")


def count_text(count: int) -> str:
    """Parameters or tokens: 4.13 M, 512."""
    return scaled(count, "").rstrip()


def percent(share: float) -> str:
    """A share as percent: 0.0084 is 0.84 %, 0.126 is 12.6 %; two decimals below ten, one above, more if tiny."""
    value = share * 100
    if not math.isfinite(value):
        return significant(value)
    if value != 0 and abs(value) < 0.1:
        return f"{significant(value, 2)} %"
    decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 999.95 else 0
    return f"{value:,.{decimals}f} %"


def signed_percent(share: float) -> str:
    """A change as percent with its sign: +0.84 %, -0.20 %; no sign on zero."""
    return f"+{percent(share)}" if share > 0 else percent(share)


def ms(value: float) -> str:
    """Milliseconds, three significant digits."""
    return f"{significant(value)} ms"


def rate(value: float) -> str:
    """Tokens per second."""
    return f"{significant(value)} tokens/s"


def is_share(unit: str) -> bool:
    """Whether values in this unit are written as percent."""
    return unit.strip().lower() in (*_SHARE_UNITS, *_PERCENT_UNITS)


def quantity(value: float, unit: str) -> str:
    """A value of a constraint in the unit that the manifest names: bytes, ms, relative, percent, or any other word."""
    kind = unit.strip().lower()
    if kind in _BYTE_UNITS:
        return bytes_text(value)
    if kind in _SHARE_UNITS:
        return percent(value)
    if kind in _PERCENT_UNITS:
        return percent(value / 100)
    return f"{significant(value)} {unit}"
