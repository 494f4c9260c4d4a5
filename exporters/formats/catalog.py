"""The formats by name: what a user may write, and what a search may choose from."""

from __future__ import annotations

import fnmatch
import re

from exporters.errors import SlmcError
from exporters.formats.base import Format, stored_bits
from exporters.formats.corrected import LARGEST_RANK, MARK, CorrectedFormat
from exporters.formats.dense import FP16, FP32, SIGN
from exporters.formats.event import PREFIX, EventFormat
from exporters.formats.integer import PLANE_BITS, IntegerFormat
from exporters.formats.sparse import sparse_named

GROUPS = (16, 32, 64, 128, 256)
"""Group sizes that the kernels and MatMulNBits both know."""

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
)
"""The formats of any matrix that a search may choose from."""

_CORRECTED = re.compile(r"(?:diag|lr([1-9][0-9]*))\+([^+/]+)", re.ASCII)
_INTEGER = re.compile(r"(u?)int([1-9])(?:-g([1-9][0-9]*))?")


def format_named(name: str) -> Format:
    """The format of a name such as fp16, uint2-g32, sign, event/int4-g64, fp4-g16, 2:4/int4-g64, 1:8/int8+6:8/fp4-g16.

    Raises:
        SlmcError: no such format; the text says what is allowed.
    """
    for fixed in FIXED:
        if fixed.name == name:
            return fixed
    match = _INTEGER.fullmatch(name.removeprefix(PREFIX))
    if match and int(match[2]) in PLANE_BITS and (match[3] is None or int(match[3]) in GROUPS):
        dense = IntegerFormat(int(match[2]), int(match[3]) if match[3] else None, not match[1])
        return EventFormat(dense) if name.startswith(PREFIX) else dense
    corrected = _CORRECTED.fullmatch(name)
    if corrected:
        return _corrected(format_named(corrected[2]), int(corrected[1] or 0), name)
    sparse = None if name.startswith(PREFIX) else sparse_named(name, format_named)
    if sparse:
        return sparse
    raise SlmcError(
        f"unknown format {name!r}; allowed are fp32, fp16, sign, and int or uint with "
        f"{', '.join(map(str, PLANE_BITS))} bits, per row or per group of {', '.join(map(str, GROUPS))} inputs: "
        f"int8, int4-g64, uint2-g32; {PREFIX} before one of these stores it for inputs that are mostly zero; sparse, "
        "decomposed and four-bit float ones: 2:4/int4-g64, 4:8x16/int4-g64, 1:8/int8+6:8/fp4-g16, fp4-g16; integers "
        f"with a correction beside them: diag{MARK}int4-g64, lr4{MARK}int3-g64"
    )


def _corrected(values: Format, rank: int, name: str) -> Format:
    if not isinstance(values, IntegerFormat):
        raise SlmcError(f"unknown format {name!r}; a correction stands before integers: diag{MARK}int4-g64")
    if rank > LARGEST_RANK:
        raise SlmcError(f"unknown format {name!r}; the rank of a correction is at most {LARGEST_RANK}")
    return CorrectedFormat(values, rank)


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
