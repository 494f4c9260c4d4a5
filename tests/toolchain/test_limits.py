"""Quantities as users write them."""

from __future__ import annotations

import pytest

from exporters.errors import SlmcError
from toolchain.limits import parse_bytes, parse_seconds, parse_share


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("3MB", 3_000_000), ("1.5 KiB", 1536), ("15%", 150), ("2gb", 2 * 10**9), ("64B", 64), ("1e3KB", 10**6)],
)
def test_bytes(text: str, wanted: int) -> None:
    assert parse_bytes(text, "--x", 1000) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"), [("1%", 0.01), ("0.01", 0.01), ("0", 0.0), ("1e-05", 1e-5), ("250 %", 2.5)]
)
def test_shares(text: str, wanted: float) -> None:
    assert parse_share(text, "--x") == pytest.approx(wanted, abs=0)


@pytest.mark.parametrize(
    ("text", "wanted"), [("5ms", 5e-3), ("90s", 90), ("10m", 600), ("2h", 7200), ("7", 7), ("3us", 3e-6)]
)
def test_seconds(text: str, wanted: float) -> None:
    assert parse_seconds(text, "--x") == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["", " ", "-1", "-5%", "abc", "1,5", "%", "1 2", "inf", "nan", "0x10", "1e999", "٣"])
@pytest.mark.parametrize("parse", [lambda t: parse_bytes(t, "--x", 1000), lambda t: parse_share(t, "--x"),
                                   lambda t: parse_seconds(t, "--x")])  # fmt: skip
def test_nonsense_is_named_with_what_is_allowed(text: str, parse: object) -> None:
    with pytest.raises(SlmcError, match=r"--x: .*(allowed is|no time|no bytes)"):
        parse(text)  # type: ignore[operator]


def test_units_of_another_kind_and_nothing_at_all() -> None:
    for call in (
        lambda: parse_bytes("5ms", "--x", 1),
        lambda: parse_share("5MB", "--x"),
        lambda: parse_seconds("5%", "--x"),
    ):
        with pytest.raises(SlmcError, match="has the unit"):
            call()
    with pytest.raises(SlmcError, match="no unit"):
        parse_bytes("3000000", "--x", 1)
    for call in (lambda: parse_bytes("0.1%", "--x", 100), lambda: parse_seconds("0", "--x")):
        with pytest.raises(SlmcError, match="give more"):
            call()
