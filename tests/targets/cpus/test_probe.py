"""Chains run and are priced on the real runtime; what is probed follows the caches; a probed target predicts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import onnx
import pytest

from exporters.artifact.blocks import expand
from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.parsing import parse
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from exporters.graph_nodes import read_workload
from exporters.microbenchmark_nodes import PLAIN_NODES, write_plain_benchmark
from exporters.microbenchmarks import (
    activation_widths,
    matrix_operator,
    write_matrix_benchmark,
)
from targets.cpus import probe
from targets.cpus.cost import predict
from targets.cpus.plan import FORMATS, ProbePlan, plan_for, working_sets
from targets.cpus.spec import CostRow, Cpu, read_cpu, to_toml
from targets.device import probing
from targets.device.probing import Probed, ProbeJob, Task, opened_benchmark


def run(benchmark) -> None:
    expand(benchmark.block, benchmark.tensors, benchmark.repeats, benchmark.data)
    opened_benchmark(benchmark.path, benchmark.width, 1)()


TINY = ProbePlan(("int4-g64", "fp32"), ((64, 64), (128, 64), (128, 128)), (64, 256), (1,), 0.002)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_chain_that_runs(name, tmp_path):
    benchmark = write_matrix_benchmark(
        tmp_path / "benchmark.onnx", name, 192, 256, 1 << 19, activation_widths(name)[-1]
    )
    expand(benchmark.block, benchmark.tensors, benchmark.repeats, benchmark.data)
    onnx.checker.check_model(str(benchmark.path))
    each = sum(bytes_for(format_named(name), *shape) for shape in ((192, 256), (256, 192)))
    assert benchmark.working_set_bytes == ((1 << 19) // each) * each
    assert benchmark.priced == ((matrix_operator(name), 192, 256), (matrix_operator(name), 256, 192))
    nodes = read_workload(benchmark.path).nodes
    assert len(nodes) == 2 * benchmark.count
    assert {(n.operator, n.format, n.rows, n.cols) for n in nodes} == {(o, name, r, c) for o, r, c in benchmark.priced}
    run(benchmark)


@pytest.mark.parametrize("name", PLAIN_NODES)
def test_every_plain_node_has_a_chain_that_runs(name, tmp_path):
    benchmark = write_plain_benchmark(tmp_path / "benchmark.onnx", name, 64, count=20)
    expand(benchmark.block, benchmark.tensors, benchmark.repeats, benchmark.data)
    onnx.checker.check_model(str(benchmark.path))
    run(benchmark)
    assert {operator for operator, _, _ in benchmark.priced} <= {
        n.operator for n in read_workload(benchmark.path).nodes
    }


def test_signs_multiply_nothing(tmp_path):
    with pytest.raises(SlmcError, match="format sign: no operator multiplies with it"):
        write_matrix_benchmark(tmp_path / "benchmark.onnx", "sign", 64, 64, 1)


def test_working_sets_follow_the_caches():
    board = Cpu("b", "aarch64", "m", "neon", l1d_bytes=1 << 15, l2_bytes=1 << 20)
    assert working_sets(board, None) == (("L2", 1 << 19), ("memory", 1 << 24))
    server = dataclasses.replace(board, l3_bytes=1 << 25)
    assert [size for _, size in working_sets(server, None)] == [1 << 19, 1 << 22, 1 << 24, 1 << 26]
    # an eighth of 64 MB is all that may be used, down to a power of two
    assert max(size for _, size in working_sets(server, (1 << 26) + 5000)) == 1 << 23
    assert (
        max(size for _, size in working_sets(dataclasses.replace(server, l3_bytes=1 << 28), None, quick=True))
        == 1 << 27
    )


def test_quick_is_less():
    quick, whole = plan_for(4, quick=True), plan_for(4, quick=False)
    assert set(quick.formats) < set(whole.formats) and quick.threads == (1,) and whole.threads == (1, 4)


class InMemory(dict):
    """Results that do not outlive the test."""

    def add(self, key, value):
        self[key] = value
        return value


class Here:
    """This very process as a machine; it is gone after `most` jobs."""

    def __init__(self, folder: Path, most: int = 10**6) -> None:
        self.folder, self.most, self.tasks = folder, most, 0
        folder.mkdir(exist_ok=True)

    def put(self, files) -> None:
        for file in files:
            (self.folder / file.name).write_bytes(file.read_bytes())

    def run(self, tasks) -> Probed:
        self.most -= 1
        if self.most < 0:
            raise NotAvailable("the connection was cut")
        self.tasks += len(tasks)
        job = json.dumps(dataclasses.asdict(ProbeJob(str(self.folder), tuple(tasks))))
        return parse(Probed, json.loads(json.dumps(probing.answer(job)))["probed"], "here")


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(probe, "plan_for", lambda cores, quick: TINY)
    monkeypatch.setattr(probe, "working_sets", lambda cpu, free, quick: (("L2", 1 << 14), ("memory", 1 << 16)))
    monkeypatch.setattr(probe, "BATCH_TASKS", 20)
    monkeypatch.setattr(probe, "ROUNDS", 1)


def test_a_probed_target_predicts(tiny, tmp_path):
    seen: list[tuple[int, int]] = []
    machine = Here(tmp_path / "there")
    facts, empty = probe.machine_facts(machine)
    cpu = probe.probe(machine, facts, InMemory(), name="here", empty_runtime_bytes=empty, quick=False,
                      progress=lambda stage, done, total: seen.append((done, total)))  # fmt: skip
    assert seen[-1][0] == seen[-1][1] == len(seen)
    (tmp_path / "here.toml").write_text(to_toml(cpu))
    assert read_cpu(tmp_path / "here.toml") == cpu
    assert {"costs", "bandwidths", "bandwidth_gbs", "kernels", "wait", "empty_runtime_bytes"} <= cpu.sources.keys()
    assert all(row.us > 0 and row.spread == 0 for row in cpu.costs), "one turn differs from nothing"
    assert cpu.empty_runtime_bytes == empty > 10e6 and cpu.runtime.startswith("ONNX Runtime")
    work = read_workload(write_matrix_benchmark(tmp_path / "benchmark.onnx", "int4-g64", 128, 128, 1 << 14, 8).path)
    found = predict(cpu, work)
    assert found.basis == "measured costs" and found.decode_ms > 0 and found.assumed == ()
    assert not list((tmp_path / "there").glob("*.data")), "data files go as soon as they were read"


def test_an_interrupted_probe_goes_on(tiny, tmp_path):
    """What was kept is not asked for again, and the file is whole in the end."""
    whole, kept = Here(tmp_path / "whole"), InMemory()
    facts, empty = probe.machine_facts(whole)

    def probed(machine, kept):
        return probe.probe(machine, facts, kept, name="b", empty_runtime_bytes=empty, quick=False)

    all_rows = len(probed(whole, InMemory()).costs)
    first, second = Here(tmp_path / "first", most=2), Here(tmp_path / "second")
    with pytest.raises(NotAvailable, match="cut"):
        probed(first, kept)
    assert first.tasks == 40
    assert len(probed(second, kept).costs) == all_rows
    assert first.tasks + second.tasks == whole.tasks - 1, "the empty runtime was weighed by the whole one alone"


def test_a_task_that_fails_is_told(tmp_path):
    job = json.dumps(
        dataclasses.asdict(ProbeJob(str(tmp_path), (Task("benchmark", graph="g", block="none", data="d"),)))
    )
    assert "none: No such file" in probing.answer(job)["error"]["text"]


@pytest.mark.parametrize(
    ("model", "kernels", "runtime", "why"),
    [
        ("A72", "k" * 64, "ONNX Runtime 1.25", None),
        ("A53", "k" * 64, "ONNX Runtime 1.24", "its costs were measured on A72, and this is A53"),
        ("A72", "n" * 64, None, "its costs were measured with operators kkkkkkkkkkkk, and these are nnnnnnnnnnnn"),
        ("A72", None, None, "its costs were measured with operators kkkkkkkkkkkk, and these are stock"),
        ("A72", "k" * 64, "slmc-run", "its costs were measured on ONNX Runtime 1.24, and this is slmc-run"),
    ],
)
def test_an_old_file_is_noticed(model, kernels, runtime, why):
    rows = (CostRow("Add", "", 1, 1, 1, 0, 0, 1.0),)
    board = Cpu("b", "aarch64", "A72", "neon", kernels="k" * 64, runtime="ONNX Runtime 1.24")
    assert dataclasses.replace(board, costs=rows).outdated(model, kernels, runtime) == why
    assert board.outdated(model, kernels, runtime) is None, "nothing was measured"


@pytest.mark.parametrize(
    ("measured", "runs", "why"),
    [
        ("slmc-run", "slmc-run", None),
        ("slmc-run", "ONNX Runtime 1.24", "measured on slmc-run, and this is ONNX Runtime 1.24"),
        ("slmc-run under qemu-aarch64", "slmc-run", "measured on slmc-run under qemu-aarch64, and this is slmc-run"),
        (None, "slmc-run", "measured on ONNX Runtime, and this is slmc-run"),
    ],
)
def test_costs_of_one_runtime_are_not_those_of_another(measured, runs, why):
    board = Cpu("b", "a", "m", "i", runtime=measured, costs=(CostRow("Add", "", 1, 1, 1, 0, 0, 1.0),))
    assert board.outdated("m", None, runs) == (why and f"its costs were {why}")


def test_no_graph(tmp_path: Path):
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(SlmcError, match="no ONNX model"):
        read_workload(tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["int4-g64", "int8", "fp16"])
def test_chains_run_without_the_library_too(name, tmp_path, monkeypatch):
    monkeypatch.setattr(probing, "installed_library", lambda: None)
    benchmark = write_matrix_benchmark(tmp_path / "benchmark.onnx", name, 64, 64, 1 << 12, activation_widths(name)[0])
    run(benchmark)
