"""A process's time per token: the least of each position, then the mean."""

from __future__ import annotations

import types

from toolchain.gate.observe import speed, token_cpu_ms


def process(times: tuple[float, ...], references: tuple[float, ...] = (1.0,)) -> types.SimpleNamespace:
    return types.SimpleNamespace(decode_cpu_ms=times, reference_cpu_ms=references, generate_tokens=2)


def test_by_hand() -> None:
    """Three rounds of two positions: least 1 and 4, mean 2.5; a disturbed round does not count."""
    assert token_cpu_ms(process((1.0, 9.0, 2.0, 4.0, 50.0, 50.0))) == 2.5


def test_a_position_that_takes_longer_counts() -> None:
    assert token_cpu_ms(process((1.0, 4.0, 1.0, 4.0))) < token_cpu_ms(process((1.0, 5.0, 1.0, 5.0)))


def test_one_reference_for_all() -> None:
    found = speed((process((1.0, 1.0), (3.0, 2.0)), process((2.0, 2.0), (7.0, 9.0))))
    assert found.token_cpu_ms == (1.0, 2.0) and found.reference_cpu_ms == 2.0 and found.normalised == (0.5, 1.0)
