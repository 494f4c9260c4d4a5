"""Names that stand for no format, and what is said of them."""

from __future__ import annotations

import pytest

from exporters.artifact.errors import SlmcError
from exporters.formats.catalog import format_named


@pytest.mark.parametrize(
    ("name", "message"),
    [("2:4/uint4-g64", "behind the slash stands uint4-g64; N:M keeps symmetric integers"),
     ("2:4/fp16", "behind the slash stands fp16"), ("2:4/2:4/int4", "behind the slash stands 2:4/int4"),
     ("2:5/int4", "N:M is 2:5, allowed are M = 4, 8, 16 and 0 < N < M"), ("4:4/int4", "N:M is 4:4"),
     ("0:4/int4", "N:M is 0:4"), ("2:4x8/int4", "may be shared by 16 rows, 2:4x16"),
     ("2:4/int7", "unknown format 'int7'"), ("two:4/int4", "written as 2:4/int4-g64 or 4:8x16/int4-g64"),
     ("2:4/", "unknown format ''"), ("fp4-g64", "fp4-g16 and fp4-g32"),
     ("1:8/int8+6:16/int4", "both parts need the same M"), ("3:8/int8+6:8/int4", "may add up to no more than M"),
     ("1:8/int8+2:8/int4+2:8/int3", "has two parts"), ("1:8x16/int8+6:8/int4", "have a pattern per row"),
     ("diag+fp16", "stands before integers"), ("lr4+sign", "stands before integers"), ("lr65+int4-g64", "at most 64"),
     ("diag+int7", "unknown format 'int7'"), ("lr0+int4", "allowed are"), ("diagonal+int4", "allowed are"),
     ("event/diag+int4-g64", "unknown format"), ("2:4/diag+int4-g64", "unknown format")],
)  # fmt: skip
def test_names_that_are_no_format_are_refused(name, message):
    with pytest.raises(SlmcError, match=message):
        format_named(name)
