"""Formulas against the figures that follow from SDQ's definitions, and sizes against the size law."""

from __future__ import annotations

import math

import pytest

from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from toolchain.study.formulas import ideal_bits, pattern_of, pruned_bits, throughput

SDQ = "1:8/int8+6:8/fp4-g16"


@pytest.mark.parametrize(
    ("fmt", "times"),
    [
        (SDQ, 4.0),  # 1/16 + 3/16
        ("1:8/int8+5:8/fp4-g16", 1 / (1 / 16 + 5 / 32)),
        ("2:8/int8+4:8/fp4-g16", 4.0),
        ("1:8/int8+3:8/fp4-g16", 6.4),
        ("int4-g64", 4.0),
        ("4:8/int4-g64", 8.0),
        ("2:4/fp16", 2.0),
        ("fp16", 1.0),
        ("int3-g64", 16 / 3),
    ],
)
def test_throughput(fmt: str, times: float) -> None:
    assert throughput(fmt) == pytest.approx(times)


def test_ideal_bits_by_hand() -> None:
    """SDQ: payload 4, log2(8 x 7 choose 6) / 8 = log2(56) / 8, a scale per 16 inputs and one per row of 256."""
    assert ideal_bits(SDQ, 256) == pytest.approx(4 + math.log2(56) / 8 + 16 / 256 + 1)
    assert ideal_bits(SDQ, 256) - 16 / 256 - 1 == pytest.approx(4.73, abs=0.005)  # the table of the paper's terms
    assert ideal_bits("4:8/int4-g64", 256) == pytest.approx(2 + math.log2(70) / 8 + 0.25)
    assert ideal_bits("int4-g64", 64) == pytest.approx(4.25)
    assert ideal_bits("2:4/fp16", 64) == pytest.approx(8 + math.log2(6) / 4)
    assert ideal_bits("fp16", 64) == 16


@pytest.mark.parametrize("fmt", ["2:4/int4-g64", "4:8/int4-g64", "6:8/int4-g64", SDQ, "int3-g64"])
def test_what_is_stored_is_not_below_the_ideal_and_not_far_above(fmt: str) -> None:
    """Rows of 1024 inputs, a whole number of units: ranks are rounded up to whole bits, and nothing else is lost."""
    stored = 8 * bytes_for(format_named(fmt), 16, 1024) / (16 * 1024)
    assert ideal_bits(fmt, 1024) <= stored < ideal_bits(fmt, 1024) + 0.35


def test_pruned_bits() -> None:
    """Half of 16 bits and a rank of 3 bits per 4, of 7 bits per 8; three quarters and 5 bits per 8."""
    assert pruned_bits("2:4/fp16") == pytest.approx(8.75)
    assert pruned_bits("4:8/fp16") == pytest.approx(8.875)
    assert pruned_bits("6:8/fp16") == pytest.approx(12.625)
    assert pattern_of("6:8/fp16") == (6, 8)
