"""The families of formats: what a search compares with each other, and what a report calls them."""

from __future__ import annotations

from exporters.formats.base import Format
from exporters.formats.catalog import format_named
from exporters.formats.corrected import CorrectedFormat
from exporters.formats.decomposed import DecomposedFormat
from exporters.formats.event import EventFormat
from exporters.formats.float4 import Float4Format
from exporters.formats.nm import NmFormat

DENSE = "dense"
SPARSE = ("N:M", "N:M of 16 rows", "decomposed", "four-bit floats", "corrected")
"""The families that only linear layers may have."""


def family_of(name: str) -> str:
    """DENSE, or the one of SPARSE that the format of this name belongs to.

    Raises:
        SlmcError: there is no such format.
    """
    return _family(format_named(name))


def _family(fmt: Format) -> str:
    match fmt:
        case NmFormat(pattern_rows=1):
            return SPARSE[0]
        case NmFormat():
            return SPARSE[1]
        case DecomposedFormat():
            return SPARSE[2]
        case Float4Format():
            return SPARSE[3]
        case CorrectedFormat():
            return SPARSE[4]
        case EventFormat(dense=dense):
            return _family(dense)
        case _:
            return DENSE


def takes(fmt: Format, rows: int, cols: int) -> bool:
    """Whether a matrix [rows, cols] can be stored in a format: all can, but for corrections that ask for a shape."""
    return fmt.takes(rows, cols) if isinstance(fmt, CorrectedFormat) else True
