"""Energy by hand: estimated from constants, spikes as accumulates, and counters that begin anew."""

from __future__ import annotations

import pytest

from exporters.graph_nodes import GraphNode, Workload
from targets.cpus.energy import Activity, estimate_energy
from targets.device.rapl import counter_uj, spent_uj

WORK = Workload(
    (
        GraphNode("QLinear", "int8", 1000, 1000, 1_000_000, layer="a.key"),
        GraphNode("MatMul", "fp32", 100, 100, 40_000, layer="head"),
    ),
    2,
    500,
)


def test_dense():
    found = estimate_energy(WORK, cache_bytes=0)
    # 1,041,000 bytes at 1300 / 64 pJ per bit; a million int8 products of 0.3 pJ and 10,000 fp32 products of 4.6 pJ
    assert found.memory_uj == pytest.approx(1_041_000 * 8 * 1300 / 64 / 1e6)
    assert found.compute_uj == pytest.approx((1_000_000 * 0.3 + 10_000 * 4.6) / 1e6)
    assert (found.macs, found.accumulates, found.skipped, found.from_cache) == (1_010_000, 0, 0, False)
    assert found.total_uj == found.memory_uj + found.compute_uj


def test_from_the_cache():
    assert estimate_energy(WORK, cache_bytes=1_041_000).memory_uj == pytest.approx(1_041_000 * 8 * 100 / 64 / 1e6)


def test_spikes_accumulate_and_zeros_cost_nothing():
    found = estimate_energy(WORK, 0, {"a.key": Activity(0.2, spikes=True), "head": Activity(0.5, spikes=False)})
    assert (found.accumulates, found.macs, found.skipped) == (200_000, 5_000, 805_000)
    assert found.compute_uj == pytest.approx((200_000 * 0.1 + 5_000 * 4.6) / 1e6)


def test_counters(tmp_path):
    for name, value in (("intel-rapl:0", 100), ("intel-rapl:1", 990), ("intel-rapl:0:0", 7)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{value}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("999\n")
    before = counter_uj(tmp_path)
    assert before == {"intel-rapl:0": (100, 999), "intel-rapl:1": (990, 999)}
    # the second has begun anew: 10 to the end, 5 after it
    assert spent_uj(before, {"intel-rapl:0": (130, 999), "intel-rapl:1": (5, 999)}) == 30 + 15
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("what\n")
    assert counter_uj(tmp_path) is None


def test_no_counters(tmp_path):
    assert counter_uj(tmp_path / "nowhere") is None
    assert spent_uj(None, {"intel-rapl:0": (1, 9)}) is None
    assert spent_uj({"a": (1, 9)}, {"b": (1, 9)}) is None
