"""The families of formats: what a search compares with each other, what a report calls them, and what each can do."""

from __future__ import annotations

from exporters.formats.base import Format
from exporters.formats.catalog import format_named
from exporters.formats.corrected import CorrectedFormat
from exporters.formats.decomposed import DecomposedFormat
from exporters.formats.event import EventFormat
from exporters.formats.float4 import Float4Format
from exporters.formats.integer import IntegerFormat
from exporters.formats.nm import NmFormat
from exporters.formats.units import padded_columns

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


def input_group(fmt: Format, cols: int) -> int | None:
    """The group in whose blocks (ops/activations.py) a product with this format can round its inputs to 8 bits.

    None where it cannot: floats multiply them as they are, and each part of a decomposed format has a group of its own.
    """
    match fmt:
        case IntegerFormat():
            return fmt.group_size(cols)
        case EventFormat(dense=dense):
            return dense.group_size(cols)
        case NmFormat() | Float4Format():
            return fmt.group or padded_columns(cols)
        case _:
            return None


def takes(fmt: Format, rows: int, cols: int) -> bool:
    """Whether a matrix [rows, cols] can be stored in a format: all can, but for corrections that ask for a shape."""
    return fmt.takes(rows, cols) if isinstance(fmt, CorrectedFormat) else True
