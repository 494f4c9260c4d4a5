"""What a family of formats can do."""

from __future__ import annotations

import pytest

from exporters.formats.catalog import format_named


@pytest.mark.parametrize(
    ("name", "group"),
    [("int4-g64", 64), ("int8", 96), ("event/int3-g32", 32), ("2:4/int4-g128", 128), ("1:8/int8", 128), ("fp4-g16", 16),
     ("fp16", None), ("fp32", None), ("1:8/int8+6:8/fp4-g16", None), ("lr4+int4-g64", None)],
)  # fmt: skip
def test_inputs_are_rounded_in_the_blocks_of_one_group(name, group):
    """Of 70 inputs: rows with one scale are padded to 96 codes, sparse ones to 128."""
    assert format_named(name).input_group(70) == group
