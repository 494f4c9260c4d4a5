"""Chains run and are priced on the real runtime; what is probed follows the caches; a probed target predicts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import pytest

from exporters.artifact.errors import SlmcError
from exporters.chains import PLAIN_NODES, activation_widths, matrix_operator, write_matrix_chain, write_plain_chain
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from exporters.graph_nodes import read_workload
from targets.cpus import probe
from targets.cpus.cost import predict
from targets.cpus.probe import FORMATS, ProbePlan, plan_for, working_sets
from targets.cpus.spec import Cpu, read_cpu, to_toml

TINY = ProbePlan(("int4-g64", "fp32"), ((64, 64), (128, 64), (128, 128)), (64, 128), (1,), 0.002)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_chain_that_runs(name, tmp_path):
    chain = write_matrix_chain(tmp_path / "chain.onnx", name, 192, 256, 1 << 19, activation_widths(name)[-1])
    onnx.checker.check_model(str(chain.path))
    each = sum(bytes_for(format_named(name), *shape) for shape in ((192, 256), (256, 192)))
    assert chain.working_set_bytes == ((1 << 19) // each) * each
    assert chain.priced == ((matrix_operator(name), 192, 256), (matrix_operator(name), 256, 192))
    nodes = read_workload(chain.path).nodes
    assert len(nodes) == 2 * chain.count
    assert {(n.operator, n.format, n.rows, n.cols) for n in nodes} == {(o, name, r, c) for o, r, c in chain.priced}
    probe._opened(chain.path, chain.width, 1)()


@pytest.mark.parametrize("name", PLAIN_NODES)
def test_every_plain_node_has_a_chain_that_runs(name, tmp_path):
    chain = write_plain_chain(tmp_path / "chain.onnx", name, 64, count=3)
    onnx.checker.check_model(str(chain.path))
    probe._opened(chain.path, chain.width, 1)()
    assert {operator for operator, _, _ in chain.priced} <= {n.operator for n in read_workload(chain.path).nodes}


def test_signs_multiply_nothing(tmp_path):
    with pytest.raises(SlmcError, match="format sign: no operator multiplies with it"):
        write_matrix_chain(tmp_path / "chain.onnx", "sign", 64, 64, 1)


def test_working_sets_follow_the_caches():
    board = Cpu("b", "aarch64", "m", "neon", l1d_bytes=1 << 15, l2_bytes=1 << 20)
    assert working_sets(board, None) == (("L2", 1 << 19), ("memory", 1 << 24))
    server = dataclasses.replace(board, l3_bytes=1 << 25)
    assert [size for _, size in working_sets(server, None)] == [1 << 19, 1 << 22, 1 << 24, 1 << 26]
    # an eighth of 64 MB is all that may be used
    assert max(size for _, size in working_sets(server, 1 << 26)) == 1 << 23


def test_quick_is_less():
    quick, whole = plan_for(4, quick=True), plan_for(4, quick=False)
    assert set(quick.formats) < set(whole.formats) and quick.threads == (1,) and whole.threads == (1, 4)


def test_a_probed_target_predicts(monkeypatch, tmp_path):
    monkeypatch.setattr(probe, "plan_for", lambda cores, quick: TINY)
    monkeypatch.setattr(probe, "working_sets", lambda cpu, free: (("L2", 1 << 14), ("memory", 1 << 16)))
    monkeypatch.setattr(probe, "_STATE_WIDTH", 64)
    monkeypatch.setattr(probe, "ROUNDS", 1)
    seen: list[tuple[int, int]] = []
    cpu = probe.probe(progress=lambda stage, done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == len(seen)
    (tmp_path / "here.toml").write_text(to_toml(cpu))
    assert read_cpu(tmp_path / "here.toml") == cpu
    assert {"costs", "bandwidths", "bandwidth_gbs"} <= cpu.sources.keys()
    assert all(row.us > 0 for row in cpu.costs)
    work = read_workload(write_matrix_chain(tmp_path / "chain.onnx", "int4-g64", 128, 128, 1 << 14, 8).path)
    found = predict(cpu, work)
    assert found.basis == "measured costs" and found.decode_ms > 0 and found.assumed == ()


def test_no_graph(tmp_path: Path):
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(SlmcError, match="no ONNX model"):
        read_workload(tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["int4-g64", "int8", "fp16"])
def test_chains_run_without_the_library_too(name, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "installed_library", lambda: None)
    chain = write_matrix_chain(tmp_path / "chain.onnx", name, 64, 64, 1 << 12, activation_widths(name)[0])
    probe._opened(chain.path, chain.width, 1)()
