"""Quantities as users give them: every option that takes one, in every way that people write them."""

from __future__ import annotations

import click
import pytest

from exporters.artifact.errors import SlmcError
from targets.device.quantities import (
    BYTES,
    MEMORY,
    OPTIONS,
    SHARE,
    TIME,
    check,
    parse_bytes,
    parse_seconds,
    parse_share,
)

RIGHT = {
    id(BYTES): ("64MB", "1e3MB", "0.5 GiB", "3mb", " 5 KB ", "9e18B"),
    id(MEMORY): ("64MB", "15%", "13.5 %", "1e-3%", "100%", "200%"),
    id(SHARE): ("1%", "0%", "250 %", "1e-5%", "0.0001%"),
    id(TIME): ("5ms", "5 ms", "5MS", "90s", "10m", "2h", "3us", "1e3us"),
}
WITHOUT_UNIT = ("1", "0", "0.01", "5", "50", "3000000", "1e-05", "1e3", " 7 ")
NO_QUANTITY = (
    "", " ", "-1", "-5%", "-5MB", "+5MB", "abc", "1,5MB", "1.000.000B", "%", "MB", "1 2", "inf", "nan", "infMB", "nan%",
    "Infinity s", "0x10", "0x10MB", "1e999MB", "1e", "½", "½MB", "½%", "٣", "٣%", "\uff15ms", "\uff15%", "\uff15MB",
    "5 µs", "1_000MB", "5MB5", "5ms!", "true", "None", "5\nMB6", "9" * 400 + "GB", ".5%",
)  # fmt: skip
FOREIGN = {id(BYTES): ("5ms", "5%", "1Mbit", "4TB"), id(MEMORY): ("5ms", "1Mbit"), id(SHARE): ("5MB", "1s", "2x"),
           id(TIME): ("5%", "5MB", "5d", "2min", "1ns")}  # fmt: skip
TOO_LARGE = {id(BYTES): "1e99GB", id(MEMORY): "1e99%", id(SHARE): "1e9%", id(TIME): "1e9h"}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_reads_and_refuses_the_same(name: str) -> None:
    """A bare number is refused by all, with the units that it may have; so is all that is no number."""
    kind, option = OPTIONS[name], "--" + name.replace("_", "-")
    for text in RIGHT[id(kind)]:
        check(text, name)
    for text in WITHOUT_UNIT:
        with pytest.raises(SlmcError, match="has no unit; give ") as caught:
            check(text, name)
        assert str(caught.value).startswith(f"{option}: {text!r}") and kind.allowed in str(caught.value)
    for text in NO_QUANTITY:
        with pytest.raises(SlmcError, match=r"is not a quantity; give |has the unit "):
            check(text, name)
    for text in FOREIGN[id(kind)]:
        with pytest.raises(SlmcError, match=r"has the unit .*; give "):
            check(text, name)
    with pytest.raises(SlmcError, match="is too large; give less"):
        check(TOO_LARGE[id(kind)], name)
    if not kind.zero:
        with pytest.raises(SlmcError, match="is nothing at all; give more"):
            check("0" + next(iter(kind.units)), name)


def test_no_command_takes_a_quantity_that_the_table_does_not_know() -> None:
    """Options whose help names a unit are in the table, and those of the table exist."""
    from toolchain.cli.main import main

    context = click.Context(main)
    known = set()
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        known |= {p.name for p in command.params if isinstance(p, click.Option)}
    assert set(OPTIONS) - {"tolerance"} <= known and "tolerances" in known
    assert {n for n in known if n and n.startswith(("max_", "limit_", "min_"))} <= {*OPTIONS, "limit_cores"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("3MB", 3_000_000), ("1.5 KiB", 1536), ("2gb", 2 * 10**9), ("64B", 64), ("1e3KB", 10**6), ("1e3MB", 10**9)],
)
def test_bytes(text: str, wanted: int) -> None:
    assert parse_bytes(text, "--x") == parse_bytes(text, "--x", 1000) == wanted


@pytest.mark.parametrize(
    ("text", "whole", "wanted"),
    [("15%", 1000, 150), ("100%", 1695496, 1695496), ("29%", 100, 29), ("13.5%", 28_920_001, 3_904_200)],
)
def test_percent_of_a_whole_is_exact_and_rounded_down(text: str, whole: int, wanted: int) -> None:
    assert parse_bytes(text, "--x", whole) == wanted


@pytest.mark.parametrize(("text", "wanted"), [("1%", 0.01), ("0%", 0.0), ("0.001%", 1e-5), ("250 %", 2.5)])
def test_shares(text: str, wanted: float) -> None:
    assert parse_share(text, "--x") == pytest.approx(wanted, abs=0)


@pytest.mark.parametrize(
    ("text", "wanted"), [("5ms", 5e-3), ("90s", 90), ("10m", 600), ("10M", 600), ("2h", 7200), ("3us", 3e-6)]
)
def test_seconds(text: str, wanted: float) -> None:
    assert parse_seconds(text, "--x") == pytest.approx(wanted)


@pytest.mark.parametrize(("text", "whole"), [("0.1%", 100), ("0.5B", None), ("1e-99%", 10**9)])
def test_less_than_a_byte(text: str, whole: int | None) -> None:
    with pytest.raises(SlmcError, match=r"--x: .* is less than a byte; give more"):
        parse_bytes(text, "--x", whole)


def test_percent_of_nothing_in_particular() -> None:
    with pytest.raises(SlmcError, match=r"has the unit '%'; give a number with a unit .* as 64MB"):
        parse_bytes("10%", "--limit-memory")
