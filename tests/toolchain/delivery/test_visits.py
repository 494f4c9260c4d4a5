"""How sure a measured time is; cases worked by hand."""

from __future__ import annotations

import pytest
from machines import measurement_with

from targets.device.memory import Memory
from toolchain.delivery.visits import spread, together, unsure

QUIET = {"reference_wall_ms": (8.0, 4.0), "reference_cpu_ms": (8.0, 4.0)}


def test_the_spread_is_half_of_what_repetitions_differ_by() -> None:
    """Medians of 10 and 12 ms around one of 11: 1 ms is a share of 1/11."""
    found = measurement_with(decode_wall_ms=(10.0, 10.0, 50.0, 12.0, 12.0, 1.0), generate_tokens=3)
    assert spread(found) == pytest.approx(1 / 11)
    assert spread(measurement_with(decode_wall_ms=(10.0, 30.0, 20.0))) == 0, "one repetition differs from nothing"


def test_a_limit_within_the_spread_decides_nothing() -> None:
    found = measurement_with(decode_wall_ms=(10.0,) * 3 + (12.0,) * 3, **QUIET)
    assert unsure(found, 11.5, 1.0) and unsure(found, 10.5, 1.0)
    assert not unsure(found, 13.0, 1.0) and not unsure(found, 5.0, 1.0) and not unsure(found, None, 1.0)


def test_a_board_that_always_waits_is_no_reason_to_doubt() -> None:
    """A quarter of a core: the reference work takes four times its CPU time, as ever. On another board it is busy."""
    found = measurement_with(reference_wall_ms=(8.0, 8.0), reference_cpu_ms=(2.0, 2.0))
    assert unsure(found, 1.0, 1.0) and not unsure(found, 1.0, 4.0)


def test_visits_together_are_one_measurement() -> None:
    peaks = [Memory(1, 1, 1, 1, 0, peak) for peak in (5, 9, 7)]
    visits = [
        measurement_with(decode_wall_ms=(ms,) * 3, repetitions=1, ended=peak, generation_uj=uj, **QUIET)
        for ms, peak, uj in zip((10.0, 14.0, 12.0), peaks, (1, 2, 3), strict=True)
    ]
    found = together(visits, 1.0)
    assert found.decode_ms.p50 == 12.0 and found.repetitions == 3 and found.ended.peak_bytes == 9
    assert found.generation_uj == 6 and found.uj_per_token == pytest.approx(6 / 9)
    assert spread(found) == pytest.approx(2 / 12)


def test_a_visit_in_doubt_counts_only_where_all_are() -> None:
    busy = measurement_with(decode_wall_ms=(30.0,) * 3, reference_wall_ms=(80.0, 80.0))
    calm = measurement_with(decode_wall_ms=(10.0,) * 3, **QUIET)
    assert together([busy, calm], 1.0) == calm
    assert together([busy, busy], 1.0).decode_ms.p50 == 30.0
