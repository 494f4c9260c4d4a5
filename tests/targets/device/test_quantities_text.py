"""Numbers as reports write them."""

from __future__ import annotations

import math

import pytest

from targets.device import quantities


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_600, "1.00 MB"),
        (2_080_000, "2.08 MB"),
        (28_920_000, "28.9 MB"),
        (-6_300_000, "-6.30 MB"),
        (1.5e15, "1,500 TB"),
    ],
)
def test_bytes_have_decimal_prefixes(value: float, text: str) -> None:
    assert quantities.bytes_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0084, "0.84 %"), (0.126, "12.6 %"), (0.0, "0.00 %"), (0.00012, "0.012 %"), (0.0999499, "9.99 %"),
     (0.09996, "10.0 %"), (12.5, "1,250 %"), (-0.002, "-0.20 %"), (math.inf, "infinite"), (math.nan, "not a number")],
)  # fmt: skip
def test_percent(value: float, text: str) -> None:
    assert quantities.percent(value) == text


def test_a_change_carries_its_sign_and_zero_none() -> None:
    assert [quantities.signed_percent(v) for v in (0.0084, -0.0084, 0.0)] == ["+0.84 %", "-0.84 %", "0.00 %"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.00123, "0.00123"), (0.0000123, "1.23e-5"), (999.6, "1,000"), (12.34, "12.3"), (1.2e7, "1.20e7")],
)
def test_significant_digits(value: float, text: str) -> None:
    assert quantities.significant(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(3e6, "bytes", "3.00 MB"), (0.01, "relative", "1.00 %"), (1.0, "%", "1.00 %"), (5.0, "ms", "5.00 ms"),
     (20.0, "tokens/s", "20.0 tokens/s")],
)  # fmt: skip
def test_a_quantity_is_written_in_its_unit(value: float, unit: str, text: str) -> None:
    assert quantities.quantity(value, unit) == text


def test_times_rates_and_counts() -> None:
    assert (quantities.ms(5.843), quantities.rate(168.3), quantities.count_text(7_210_000)) == (
        "5.84 ms",
        "168 tokens/s",
        "7.21 M",
    )
