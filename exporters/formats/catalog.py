"""The formats by name: what a user may write, and what a search may choose from."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Format, stored_bits
from exporters.formats.corrected import CorrectedFormat
from exporters.formats.decomposed import DecomposedFormat
from exporters.formats.dense import FP16, FP32, SIGN, FloatFormat, SignFormat
from exporters.formats.event import EventFormat
from exporters.formats.float4 import Float4Format
from exporters.formats.integer import IntegerFormat
from exporters.formats.nm import NmFormat
from exporters.formats.nonuniform import NonUniformFormat
from exporters.formats.ternary import TernaryFormat
from exporters.formats.trits import TritFormat

KINDS: tuple[type[Format], ...] = (
    FloatFormat,
    SignFormat,
    IntegerFormat,
    NonUniformFormat,
    EventFormat,
    CorrectedFormat,
    Float4Format,
    NmFormat,
    DecomposedFormat,
    TernaryFormat,
    TritFormat,
)
"""All kinds of formats, in the order in which a name is read."""

FIXED: tuple[Format, ...] = (FP32, FP16, SIGN)

SEARCHED: tuple[Format, ...] = (
    FP16,
    IntegerFormat(8, None, True),
    IntegerFormat(6, 64, True),
    IntegerFormat(5, 64, True),
    IntegerFormat(4, 32, True),
    IntegerFormat(4, 64, True),
    IntegerFormat(4, 128, True),
    IntegerFormat(3, 32, True),
    IntegerFormat(3, 64, True),
    IntegerFormat(3, 128, True),
    IntegerFormat(2, 32, True),
    IntegerFormat(2, 64, True),
    IntegerFormat(4, 64, False),
    IntegerFormat(3, 64, False),
    IntegerFormat(2, 32, False),
    IntegerFormat(2, 64, False),
    IntegerFormat(3, 256, True),
    IntegerFormat(2, 128, True),
    IntegerFormat(2, 256, True),
    NonUniformFormat(4, 64),
    NonUniformFormat(3, 64),
)
"""The formats of any matrix that a search may choose from."""


def format_named(name: str) -> Format:
    """The format of a name such as fp16, uint2-g32, sign, event/int4-g64, fp4-g16, 2:4/int4-g64, 1:8/int8+6:8/fp4-g16.

    Raises:
        SlmcError: no such format; the text says what is allowed.
    """
    for kind in KINDS:
        found = kind.named(name, format_named)
        if found:
            return found
    spelled = "; ".join(kind.SPELLING for kind in KINDS if kind.SPELLING)
    raise SlmcError(f"unknown format {name!r}; allowed are {spelled}")


def is_format(name: str) -> bool:
    """Whether a format has this name."""
    try:
        format_named(name)
    except SlmcError:
        return False
    return True


def format_of_node(operator: str, attributes: Mapping[str, int], cols: int, zeros: bool) -> str:
    """The name of the format of the matrix that a graph's node multiplies with; '' where it is none of ours.

    cols: inputs of the matrix; zeros: whether the node has zero points.
    """
    for kind in KINDS:
        found = kind.of_node(operator, attributes, cols, zeros)
        if found:
            return found.name
    return ""


def family_of(name: str) -> str:
    """The family (exporters.formats.families) of the format of this name.

    Raises:
        SlmcError: there is no such format.
    """
    return format_named(name).family


SEARCHED_SPARSE: tuple[Format, ...] = tuple(
    format_named(name)
    for name in (
        "1:8/int8+6:8/fp4-g16", "fp4-g16", "fp4-g32",
        "6:8/int4-g64", "4:8/int4-g64", "2:4/int4-g64", "4:8x16/int4-g64",
        "6:8/int3-g64", "4:8/int3-g64", "14:16x16/int3-g256", "6:8x16/int3-g64", "12:16x16/int3-g256",
        "14:16x16/int2-g256", "12:16x16/int2-g256", "10:16x16/int2-g256", "8:16x16/int2-g256",
        "2:8/int2-g256", "1:4/int2-g256", "1:8/int2-g256",
        "diag+int4-g64", "diag+int3-g64",
    )
)  # fmt: skip
"""Those of linear layers alone that a search may choose from: which pay, docs/benchmarks/frontier.md tells."""


def formats_matching(patterns: tuple[str, ...]) -> tuple[Format, ...]:
    """The searched formats that match any glob, plus every exact name, in order of falling bits per weight.

    Raises:
        SlmcError: a pattern matches nothing.
    """
    chosen: dict[str, Format] = {}
    for pattern in patterns:
        found = [f for f in (FP32, *SEARCHED, *SEARCHED_SPARSE) if fnmatch.fnmatchcase(f.name, pattern)]
        if not found and any(c in pattern for c in "*?["):
            names = ", ".join(f.name for f in (*SEARCHED, *SEARCHED_SPARSE))
            raise SlmcError(f"no searched format matches {pattern!r}; there are {names}")
        chosen |= {f.name: f for f in found or [format_named(pattern)]}
    return tuple(sorted(chosen.values(), key=lambda f: -stored_bits(f)))
