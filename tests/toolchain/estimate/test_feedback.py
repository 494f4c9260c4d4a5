"""What measurements teach of a forecast; cases worked by hand."""

from __future__ import annotations

import pytest

from toolchain.estimate.feedback import Factors, TimeSeen, factors, overhead_bytes


def test_nothing_was_measured():
    assert factors([]) == Factors(1.0, 1.0) and overhead_bytes([]) == 0


def test_one_measurement_gives_one_factor():
    """4 ms were predicted and 12 measured: everything takes three times as long."""
    found = factors([TimeSeen(1.0, 3.0, 12.0)])
    assert (found.fixed, found.layers) == pytest.approx((3.0, 3.0))


def test_several_tell_the_parts_apart():
    """Measured = 2 fixed + 4 layers, exactly: six such measurements outweigh the belief in one factor."""
    parts = [(1.0, 9.0), (1.0, 1.0), (1.0, 0.1)] * 2
    found = factors([TimeSeen(f, x, 2 * f + 4 * x) for f, x in parts])
    assert found.fixed == pytest.approx(2.0, rel=0.05) and found.layers == pytest.approx(4.0, rel=0.05)


def test_no_part_is_for_nothing():
    """However odd the measurements, a part keeps a hundredth of the common factor."""
    found = factors([TimeSeen(10.0, 0.1, 1e-3), TimeSeen(0.1, 10.0, 1e3)])
    assert found.fixed > 0 and found.layers > 0


def test_memory_beside_the_weights_is_the_most_that_was_seen():
    assert overhead_bytes([(100, 130), (80, 115)]) == 35
