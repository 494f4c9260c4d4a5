"""Comparisons by hand, how often they err on known noise, and what cannot be compared."""

from __future__ import annotations

import math

import numpy as np
import pytest

from exporters.artifact.errors import SlmcError
from targets.measure.paired import compare, compare_paired


def test_by_hand():
    # logs 0, 1 beside -1, 0: means 0.5 and -0.5, squares 4 x 0.25 over 2 degrees of freedom, error sqrt(0.5)
    found = compare([1, math.e], [1 / math.e, 1])
    assert found.ratio == pytest.approx(math.e)
    assert (found.low, found.high) == pytest.approx(
        (math.exp(1 - 4.303 * math.sqrt(0.5)), math.exp(1 + 4.303 * math.sqrt(0.5)))
    )
    assert found.runs == (2, 2)


def test_pairs_by_hand():
    # ratios e^1, e^3: mean 2, deviation sqrt(2), error 1
    found = compare_paired([math.e, math.e**4], [1, math.e])
    assert found.ratio == pytest.approx(math.exp(2))
    assert (found.low, found.high) == pytest.approx((math.exp(2 - 12.706), math.exp(2 + 12.706)))


def test_what_slows_a_pair_cancels_out():
    machine = np.array([1.0, 3.0, 1.5, 0.7, 2.0])
    noise = np.array([1.0, 1.01, 0.99, 1.0, 1.005])
    found = compare_paired(1.15 * machine * noise, machine)
    assert found.slower_than(0.1) and not compare(1.15 * machine * noise, machine).slower_than(0.0)
    assert compare_paired(machine, 1.15 * machine * noise).high < 0.9


def test_interval_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        found = compare(np.exp(random.normal(0, 0.05, 5)), np.exp(random.normal(0.1, 0.05, 5)))
        held += found.low <= math.exp(-0.1) <= found.high
    assert 930 <= held <= 970


def test_more_freedom_than_the_table():
    assert compare([1.0, 1.1] * 20, [1.0, 1.1] * 20).ratio == pytest.approx(1)


@pytest.mark.parametrize("sides", [([], [1.0, 2.0, 3.0]), ([1.0], [1.0]), ([1.0, 0.0], [1.0]), ([math.nan, 1], [1.0])])
def test_what_cannot_be_compared(sides):
    with pytest.raises(SlmcError, match="cannot be compared"):
        compare(*sides)


@pytest.mark.parametrize("sides", [([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_no_pairs(sides):
    with pytest.raises(SlmcError, match="are no pairs"):
        compare_paired(*sides)
