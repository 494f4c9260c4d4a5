"""The simulation of more workers, on cases worked by hand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "scale_out.py"
SPEC = importlib.util.spec_from_file_location("scale_out", PATH)
assert SPEC is not None and SPEC.loader is not None
scale_out = importlib.util.module_from_spec(SPEC)
sys.modules["scale_out"] = scale_out
SPEC.loader.exec_module(scale_out)


def test_tasks_go_to_whoever_is_free():
    """3 and 1 begin; 2 follows the 1, at 1 to 3; 4 follows whoever is free first, at 3 to 7."""
    assert scale_out.group_s([3.0, 1.0, 2.0, 4.0], 2, 0.0) == 7.0
    assert scale_out.group_s([3.0, 1.0, 2.0, 4.0], 4, 0.0) == 4.0
    assert scale_out.group_s([], 4, 0.0) == 0.0


def test_giving_tasks_out_ends_the_gain():
    """A hundred tasks of 1 s, one given out every 0.5 s: the last begins after 50 s, whatever the number of workers."""
    assert scale_out.group_s([1.0] * 100, 1000, 0.5) == pytest.approx(51.0)


def test_workers_share_the_cores_that_there_are():
    """Three tasks of 1, 2 and 3 s at once on two cores: each at two thirds of its speed until the first has ended at
    1.5 s; then a core for each, and 1 and 2 s are left."""
    assert scale_out.group_s([1.0, 2.0, 3.0], 3, 0.0, 2) == pytest.approx(3.5)
    assert scale_out.group_s([1.0, 2.0, 3.0], 2, 0.0, 2) == pytest.approx(4.0)
    trace = scale_out.Trace("m", "quick", 2, 1.0, 2.0, 0.0, 0.0, 1.0, ((4.0,) * 4,), ("score",))
    assert scale_out.search_s(trace, 4, 2) == pytest.approx(1.0 + 2 * 2.0 + 8.0)


def test_a_search_is_its_groups_one_after_the_other():
    trace = scale_out.Trace("m", "quick", 2, 10.0, 2.0, 0.0, 0.0, 1.0, ((4.0, 4.0), (1.0,)), ("loss", "score"))
    assert scale_out.search_s(trace, 1) == 19.0
    assert scale_out.search_s(trace, 2) == 10.0 + 2.0 + 4.0 + 1.0 == scale_out.critical_s(trace)
    assert "| 2 | 17.0 | 1.12 |" in scale_out.table(trace)
