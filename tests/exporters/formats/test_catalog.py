"""Names of formats: what is written is what is read back, and what is not a format is refused with what is."""

from __future__ import annotations

import pytest

from exporters.artifact.errors import SlmcError
from exporters.formats.catalog import FIXED, SEARCHED, SEARCHED_SPARSE, format_named, formats_matching
from exporters.formats.integer import CODE_BITS, GROUPS

ALL_NAMES = [f.name for f in FIXED] + [
    f"{kind}{bits}{group}"
    for kind in ("int", "uint")
    for bits in CODE_BITS
    for group in ("", *(f"-g{size}" for size in GROUPS))
]


def test_a_name_says_its_parts():
    fmt = format_named("uint5-g32")
    assert (fmt.bits, fmt.group, fmt.symmetric) == (5, 32, False)
    fmt = format_named("int8")
    assert (fmt.bits, fmt.group, fmt.symmetric) == (8, None, True)
    assert [format_named(name).bits for name in ("fp32", "fp16", "sign")] == [32, 16, 1]


@pytest.mark.parametrize("name", ALL_NAMES)
def test_names_parse_and_print_back(name):
    assert format_named(name).name == name
    assert format_named(name) == format_named(name)


def test_searched_formats_are_distinct_and_can_be_named():
    searched = (*SEARCHED, *SEARCHED_SPARSE)
    assert len({f.name for f in searched}) == len(searched)
    for fmt in searched:
        assert format_named(fmt.name) == fmt


@pytest.mark.parametrize(
    "name",
    ["", "int", "int1", "int7", "int9", "int16", "INT4", "fp8", "fp64", "int4-g", "int4-g0", "int4-g48", "int4-g064",
     "int4_g64", " int4", "int4-g64\n", "int04", "int٤", "sign-g32", "fp16-g64", "int4-g*"],
)  # fmt: skip
def test_unknown_names_are_refused_with_what_is_allowed(name):
    with pytest.raises(SlmcError) as refusal:
        format_named(name)
    text = str(refusal.value)
    assert text.startswith(f"unknown format {name!r}; allowed are fp32, fp16; sign; int or uint with")
    assert "2, 3, 4, 5, 6, 8 bits" in text and "16, 32, 64, 128, 256" in text and "int4-g64" in text


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (("int4-g*",), ["int4-g32", "int4-g64", "int4-g128"]),
        (("uint*",), ["uint4-g64", "uint3-g64", "uint2-g32", "uint2-g64"]),
        (("int2-g32", "fp32", "int8"), ["fp32", "int8", "int2-g32"]),
        (("uint8", "sign"), ["uint8", "sign"]),
        (("int8", "int8", "int?"), ["int8"]),
        (("fp*",), ["fp32", "fp16", "fp4-g16", "fp4-g32"]),
        (("2:4*", "6:8/int4-*"), ["6:8/int4-g64", "2:4/int4-g64"]),
        (("4:8x16/*", "int2-g256", "1:4/*"), ["4:8x16/int4-g64", "int2-g256", "1:4/int2-g256"]),
    ],
)
def test_globs_choose_in_order_of_falling_bits(patterns, names):
    assert [f.name for f in formats_matching(patterns)] == names


def test_a_star_is_everything_searched_and_fp32():
    assert {f.name for f in formats_matching(("*",))} == {"fp32", *(f.name for f in (*SEARCHED, *SEARCHED_SPARSE))}


def test_a_glob_that_matches_nothing_is_refused():
    with pytest.raises(SlmcError, match=r"no searched format matches 'int7\*'; there are fp16, int8, "):
        formats_matching(("int8", "int7*"))


def test_an_exact_name_that_is_no_format_is_refused():
    with pytest.raises(SlmcError, match="unknown format 'int7'"):
        formats_matching(("int8", "int7"))
