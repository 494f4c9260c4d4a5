"""How every number in a report is written: bytes, shares, times and counts, the same in HTML and in Markdown."""

from __future__ import annotations

import math

NOT_MEASURED = "not measured"

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
