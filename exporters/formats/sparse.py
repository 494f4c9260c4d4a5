"""Names of the sparse, shared-pattern, decomposed and four-bit float formats, parsed."""

from __future__ import annotations

import re
from collections.abc import Callable

from exporters.errors import SlmcError
from exporters.formats.base import Format
from exporters.formats.decomposed import DecomposedFormat
from exporters.formats.float4 import Float4Format
from exporters.formats.integer import IntegerFormat
from exporters.formats.nm import SHARED_ROWS, NmFormat
from exporters.formats.patterns import PERIODS

FLOAT4_GROUPS = (16, 32)

_FLOAT4 = re.compile(r"fp4-g([1-9][0-9]*)", re.ASCII)
_PATTERN = re.compile(r"([0-9]+):([0-9]+)(?:x([0-9]+))?/(.*)", re.ASCII | re.DOTALL)


def sparse_named(name: str, dense: Callable[[str], Format]) -> Format | None:
    """The format of a name such as fp4-g16, 2:4/int4-g64, 4:8x16/int4-g64, 1:8/int8+6:8/fp4-g16; None for other forms.

    dense: gives the formats that stand behind a slash, and raises where there is none.

    Raises:
        SlmcError: it has such a form, but a part is not allowed.
    """
    match = _FLOAT4.fullmatch(name)
    if match:
        if int(match[1]) not in FLOAT4_GROUPS:
            groups = " and ".join(f"fp4-g{g}" for g in FLOAT4_GROUPS)
            raise SlmcError(f"unknown format {name!r}; four-bit floats are {groups}")
        return Float4Format(int(match[1]))
    if "/" not in name:
        return None
    parts = [_pattern_named(part, name, dense) for part in name.split("+")]
    if len(parts) == 1:
        return parts[0]
    if len(parts) > 2:
        raise SlmcError(f"unknown format {name!r}; a decomposed format has two parts: 1:8/int8+6:8/fp4-g16")
    outliers, inliers = parts
    if outliers.period != inliers.period or outliers.kept + inliers.kept > outliers.period:
        raise SlmcError(
            f"unknown format {name!r}; both parts need the same M, and their N may add up to no more than M: "
            "1:8/int8+6:8/fp4-g16"
        )
    if outliers.pattern_rows > 1 or inliers.pattern_rows > 1:
        raise SlmcError(f"unknown format {name!r}; parts of a decomposed format have a pattern per row")
    return DecomposedFormat(outliers, inliers)


def _pattern_named(part: str, name: str, dense: Callable[[str], Format]) -> NmFormat:
    match = _PATTERN.fullmatch(part)
    if not match:
        raise SlmcError(f"unknown format {name!r}; sparse formats are written as 2:4/int4-g64 or 4:8x16/int4-g64")
    kept, period = int(match[1]), int(match[2])
    if period not in PERIODS or not 0 < kept < period:
        allowed = ", ".join(map(str, PERIODS))
        raise SlmcError(f"unknown format {name!r}: N:M is {kept}:{period}, allowed are M = {allowed} and 0 < N < M")
    if match[3] and int(match[3]) != SHARED_ROWS:
        raise SlmcError(
            f"unknown format {name!r}: a pattern may be shared by {SHARED_ROWS} rows, {kept}:{period}x{SHARED_ROWS}"
        )
    values = dense(match[4])
    if not (isinstance(values, Float4Format) or (isinstance(values, IntegerFormat) and values.symmetric)):
        raise SlmcError(
            f"unknown format {name!r}: behind the slash stands {match[4]}; N:M keeps symmetric integers and four-bit "
            "floats, for zero is among their values: 2:4/int4-g64, 6:8/fp4-g16"
        )
    return NmFormat(kept, period, values, SHARED_ROWS if match[3] else 1)
