"""Predictions by hand: the law that fits a table, what is taken for what was not measured, estimates."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.artifact.errors import NotAvailable
from exporters.graph_nodes import GraphNode, Workload, workload
from targets.cpus.cost import NODE_CYCLES, fit_law, predict, read_gbs
from targets.cpus.spec import Bandwidth, CostRow, Cpu

NEAR, FAR = 1 << 19, 1 << 25


def row(operator: str, fmt: str, rows: int, cols: int, working_set: int, us: float, threads: int = 1) -> CostRow:
    return CostRow(operator, fmt, rows, cols, threads, 0, working_set, us)


def law_us(rows: int, cols: int, rate: float) -> float:
    return 0.5 + 0.002 * (rows + cols) + rate * rows * cols


def linear(fmt: str, near: float, far: float, operator: str = "QLinear") -> tuple[CostRow, ...]:
    """Rows that obey the law exactly: rates near and far."""
    shapes = ((128, 128), (256, 256), (1024, 256), (1024, 1024))
    return (
        *(row(operator, fmt, r, c, NEAR, law_us(r, c, near)) for r, c in shapes),
        row(operator, fmt, 1024, 1024, FAR, law_us(1024, 1024, far)),
    )


PLAIN = (row("Add", "", 256, 1, 2048, 0.4), row("Add", "", 1024, 1, 8192, 0.6))
BARE = Cpu("t", "aarch64", "Some core", "neon_dotprod", cores=4, clock_ghz=2.0)
CALLS = (row("Session", "", 4, 1, 0, 5.0), row("Session", "", 32, 1, 0, 5.0))
CPU = dataclasses.replace(BARE, costs=(*linear("int4-g64", 2e-5, 8e-5), *PLAIN, *CALLS))


def work(*nodes: GraphNode, states: int = 8) -> Workload:
    return Workload(nodes, states, 0)


def test_law_finds_what_made_the_table():
    law = fit_law(linear("int4-g64", 2e-5, 8e-5))
    assert (law.a, law.b, *law.rates) == pytest.approx((0.5, 0.002, 2e-5, 8e-5))
    assert law.us(512, 512, NEAR) == pytest.approx(law_us(512, 512, 2e-5))
    # half way between the working sets on a logarithmic scale, and beyond them
    assert law.us(512, 512, 1 << 22) == pytest.approx(law_us(512, 512, 5e-5))
    assert law.us(512, 512, 1 << 40) == pytest.approx(law_us(512, 512, 8e-5))


def test_coefficients_are_never_negative():
    # faster with more width: noise, of which no law may make a gain
    law = fit_law((row("Relu", "", 256, 1, 9, 0.4), row("Relu", "", 1024, 1, 9, 0.2)))
    assert law.b == 0 and law.us(4096, 1, 9) == pytest.approx(0.24, abs=0.1)


def test_prediction_by_hand():
    nodes = (GraphNode("QLinear", "int4-g64", 256, 256, NEAR // 2), GraphNode("Add", "", 1024, 1, NEAR // 2))
    found = predict(CPU, work(*nodes))
    assert found.basis == "measured costs" and found.assumed == ()
    assert found.matrices_ms == pytest.approx(law_us(256, 256, 2e-5) / 1e3)
    assert (found.others_ms, found.call_ms) == pytest.approx((0.6e-3, 5e-3))
    assert found.decode_ms == pytest.approx(found.matrices_ms + found.others_ms + found.call_ms)
    assert found.weight_bytes == NEAR


def test_a_part_of_a_core_stretches_what_one_thread_costs():
    """A quarter of a core: four times the CPU time that the rows tell. Rows of several threads are wall time."""
    work = Workload((GraphNode("QLinear", "int4-g64", 256, 256, 256 * 136),), 4, 1000)
    free, quarter = predict(CPU, work), predict(dataclasses.replace(CPU, wait=4.0), work)
    assert quarter.decode_ms == pytest.approx(4 * free.decode_ms)
    assert quarter.matrices_ms + quarter.others_ms + quarter.call_ms == pytest.approx(quarter.decode_ms)
    both = dataclasses.replace(CPU, wait=4.0, costs=tuple(dataclasses.replace(row, threads=2) for row in CPU.costs))
    assert predict(both, work, 2).decode_ms == pytest.approx(free.decode_ms)


def test_steps_behind_the_first_cost_no_node():
    """0.4 and 0.6 us of Add at 257 and 1025: an entry costs 0.2 / 768 us, a node without any 0.4 - 257 times that."""
    nodes = [GraphNode("Add", "", 1024, 1, 0, behind=behind) for behind in (False, True, True)]
    alone, node = 0.6e-3, (0.4 - 257 * 0.2 / 768) * 1e-3
    assert predict(CPU, work(*nodes)).others_ms == pytest.approx(3 * alone - 2 * node)
    matrix = GraphNode("QLinear", "int4-g64", 256, 256, NEAR // 4)
    pair = (matrix, dataclasses.replace(matrix, behind=True))
    first, both = (predict(CPU, work(*some)).matrices_ms for some in (pair[:1], pair))
    assert both == pytest.approx(2 * first - node)
    free = dataclasses.replace(
        CPU, costs=tuple(dataclasses.replace(r, us=r.us - 0.5) for r in CPU.costs if r.cols > 1) + PLAIN
    )
    first, both = (predict(free, work(*some)).matrices_ms for some in (pair[:1], pair))
    assert both == pytest.approx(2 * first)  # nothing to take away


def test_what_has_no_row_is_named():
    # 4.25 bits per weight of int4-g64, 8.0x of int8: between them by the bits as stored
    cpu = dataclasses.replace(CPU, costs=CPU.costs + linear("int8", 4e-5, 4e-5))
    six = GraphNode("SparseLinear", "2:4/int8", 1024, 1024, round(1024 * 1024 * 6.13 / 8))
    found = predict(cpu, work(six, GraphNode("Fused", "", 256, 1, 0)))
    assert found.assumed == ("SparseLinear 2:4/int8 as QLinear of as many bits", "Fused as Add")
    assert law_us(1024, 1024, 3.3e-5) < 1e3 * found.matrices_ms < law_us(1024, 1024, 6.7e-5)


def test_threads_that_were_not_measured():
    assert predict(CPU, work(), threads=3).assumed == ("3 threads as 1",)


def test_no_matrix_costs_at_all():
    cpu = dataclasses.replace(BARE, costs=PLAIN)
    with pytest.raises(NotAvailable, match="no row for QLinear int8; measure them with 'slmc targets probe"):
        predict(cpu, work(GraphNode("QLinear", "int8", 256, 256, 65536)))


def test_estimate_is_the_longer_of_reading_and_computing():
    node = GraphNode("QLinear", "int8", 1000, 1000, 1_000_000)
    overhead = NODE_CYCLES / 2e6
    slow = predict(dataclasses.replace(BARE, bandwidth_gbs=2.0), work(node))
    # 1 MB at 2 GB/s; a million products at 16 per cycle and 2 GHz take 1/32 ms
    assert slow.basis == "estimate" and slow.decode_ms == pytest.approx(0.5 + overhead)
    fast = predict(dataclasses.replace(BARE, peak_bandwidth_gbs=1000.0), work(node))
    assert fast.decode_ms == pytest.approx(1 / 32 + overhead)
    assert fast.assumed[0] == "peak bandwidth, which no program reaches"


def test_bandwidth_between_working_sets():
    rows = (
        Bandwidth("L2", 1, 1 << 10, 30.0),
        Bandwidth("memory", 1, 1 << 20, 10.0),
        Bandwidth("memory", 2, 1 << 20, 15.0),
    )
    cpu = dataclasses.replace(BARE, bandwidths=rows)
    assert read_gbs(cpu, 1 << 15, 1) == (pytest.approx(20.0), "bandwidth as measured")
    assert read_gbs(cpu, 1 << 30, 2)[0] == pytest.approx(15.0)


@pytest.mark.parametrize(
    ("cpu", "said"),
    [
        (BARE, "no costs and no bandwidth"),
        (dataclasses.replace(BARE, bandwidth_gbs=1.0, clock_ghz=None), "no clock_ghz to estimate from"),
    ],
)
def test_nothing_to_predict_from(cpu, said):
    with pytest.raises(NotAvailable, match=said) as caught:
        predict(cpu, work(GraphNode("Add", "", 1, 1, 4)))
    assert caught.value.exit_code == 5


def test_an_unmeasured_format_is_priced_by_those_with_inputs_as_wide():
    narrow = tuple(dataclasses.replace(r, activation_bits=8) for r in linear("int4-g64", 1e-5, 1e-5))
    wide = tuple(dataclasses.replace(r, activation_bits=32) for r in linear("int4-g64", 3e-5, 3e-5))
    cpu = dataclasses.replace(BARE, costs=(*narrow, *wide, *PLAIN, *CALLS))
    for operator, fmt, bits, rate in (
        ("QLinear", "int4-g32", 8, 1e-5), ("QLinear", "int4-g32", 32, 3e-5), ("EventLinear", "event/int4-g64", 0, 3e-5),
    ):  # fmt: skip
        found = predict(cpu, work(GraphNode(operator, fmt, 256, 256, 1 << 15, bits)))
        assert found.matrices_ms == pytest.approx(law_us(256, 256, rate) / 1e3)
        assert f"{operator} {fmt} as QLinear of as many bits" in found.assumed


def test_event_layouts_are_read_as_such():
    packed = [numpy_helper.from_array(np.zeros((64, 16), np.uint8), "a.codes")]
    node = helper.make_node("EventLinear", ["x", "a.codes", "s"], ["y"], domain="ai.slmc", K=64, N=32, bits=4, group=32)
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32])], packed)
    (read,) = workload(graph).nodes
    assert (read.operator, read.format, read.rows, read.cols, read.layer) == (
        "EventLinear", "event/int4-g32", 32, 64, "a",
    )  # fmt: skip


QUARTER = Cpu("q", "a", "m", "i", wait=4.0, pause_ms=3.0)
"""1 ms of every 4."""
DOCKER = Cpu("d", "a", "m", "i", wait=4.0, pause_ms=75.0)
"""25 ms of every 100, as containers get it."""


@pytest.mark.parametrize(
    ("board", "mean_ms", "median_ms"),
    [
        (QUARTER, 1.6, 0.4),  # 0.4 ms of CPU time mostly meet no pause
        (QUARTER, 2.4, 3.6),  # 0.6 ms mostly meet one
        (QUARTER, 13.2, 12.3),  # 3.3 ms: three pauses of 3 ms, seven times of ten
        (QUARTER, 14.8, 15.7),  # 3.7 ms: four
        (DOCKER, 13.2, 3.3),
        (Cpu("o", "a", "m", "i", wait=1.1), 13.2, 13.2),
    ],
)
def test_the_median_of_a_process_that_is_held_up(board, mean_ms, median_ms):
    assert board.median_ms(mean_ms) == pytest.approx(median_ms)


@pytest.mark.parametrize(
    ("limit_ms", "mean_ms"),
    [(0.4, 1.6), (3.0, 2.0), (12.3, 13.2), (15.0, 14.0), (16.0, 16.0)],  # 15.0: 3.5 ms of CPU time, then a pause more
)
def test_what_is_within_a_limit(limit_ms, mean_ms):
    assert QUARTER.mean_ms_within(limit_ms) == pytest.approx(mean_ms)
    assert QUARTER.median_ms(mean_ms - 0.01) <= limit_ms < QUARTER.median_ms(mean_ms + 0.01)
