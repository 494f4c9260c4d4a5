"""slmc-run as a machine that is probed: every chain runs on it, facts are those that Python reads, errors are told."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.artifact.blocks import BlockTensor, expand
from exporters.artifact.errors import NotAvailable
from exporters.artifact.native_library import library_path
from exporters.artifact.parsing import parse
from exporters.microbenchmark_files import Microbenchmark, states_model
from exporters.microbenchmark_nodes import PLAIN_NODES, write_plain_benchmark
from exporters.microbenchmarks import activation_widths, write_matrix_benchmark
from targets.cpus.plan import FORMATS
from targets.device.host import known_core
from targets.device.native import isa_name
from targets.device.probing import Probed, ProbeJob, Task, probe_facts
from targets.runtime.program import PROBED, given_program, installed_program, worker_words


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return installed_program()
    except NotAvailable as error:
        pytest.skip(str(error))


def asked(program: Path, folder: Path, *tasks: Task) -> Any:
    job = json.dumps(dataclasses.asdict(ProbeJob(str(folder), tasks)))
    done = subprocess.run(worker_words(program, PROBED), input=job, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def probed(program: Path, folder: Path, *tasks: Task) -> Probed:
    found: Probed = parse(Probed, asked(program, folder, *tasks)[PROBED], "probed")
    return found


def task_of(benchmark: Microbenchmark, threads: int = 1) -> Task:
    return Task(
        "benchmark", graph=benchmark.path.name, block=benchmark.block.name, data=benchmark.data.name,
        tensors=benchmark.tensors, repeats=benchmark.repeats, width=benchmark.width, threads=threads,
    )  # fmt: skip


def test_every_chain_runs(program: Path, tmp_path: Path) -> None:
    """All formats with all widths of inputs, and all nodes without a matrix, those with states among them."""
    matrices = [
        write_matrix_benchmark(tmp_path / f"m{i}.onnx", name, 128, 192, 1 << 17, bits)
        for i, (name, bits) in enumerate((name, bits) for name in FORMATS for bits in activation_widths(name))
    ]
    plain = [write_plain_benchmark(tmp_path / f"p{i}.onnx", name, 64, 20) for i, name in enumerate(PLAIN_NODES)]
    found = probed(program, tmp_path, *(task_of(benchmark) for benchmark in (*matrices, *plain)), task_of(plain[0], 2))
    assert all(0 < result.value < 1e6 for result in found.results)
    assert found.results[-1].wait == 0 < min(result.wait for result in found.results[:-1]), "of one thread alone"
    assert not list(tmp_path.glob("*.data")), "data files go as soon as they were read"


def test_what_is_no_graph_of_nodes(program: Path, tmp_path: Path) -> None:
    (tmp_path / "states").write_bytes(states_model(5, 16))
    empty, reference, calls, read, stops = probed(
        program, tmp_path, Task("empty"), Task("reference"), Task("calls", graph="states", states=5, width=16),
        Task("bandwidth", threads=2, working_set_bytes=1 << 16), Task("pauses"),
    ).results  # fmt: skip
    assert (stops.value == 0 or stops.value >= 500) and stops.wait > 0.5, "microseconds, of half a millisecond and more"
    assert 3e5 < empty.value < 8e6, "bytes of a runtime without a model"
    assert 10 < reference.value < 1e6 and reference.wait > 0.5 and 0 < calls.value < 1e5 and 0.01 < read.value < 1e4


def test_facts_are_those_that_python_reads(program: Path, tmp_path: Path) -> None:
    found, own = probed(program, tmp_path).facts, probe_facts()
    for name in ("architecture", "cores", "l1d_bytes", "l2_bytes", "l3_bytes", "memory_bytes"):
        assert getattr(found.cpu, name) == getattr(own.cpu, name), name
    assert known_core(found.cpu.model) == own.cpu.model
    assert found.conditions.governor == own.conditions.governor
    assert found.runtime == "slmc-run" and own.runtime.startswith("ONNX Runtime ")
    if own.kernels is not None:
        assert (found.kernels, found.isa) == (own.kernels, isa_name(library_path()))


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Task("benchmark", graph="g", block="none", data="d"), "none: cannot be opened"),
        (Task("benchmark", graph="g", block="block", data="d", tensors=(BlockTensor(0, 8, 8, 1),)), "lie in its block"),
        (Task("calls", graph="none", states=1, width=1), "none: cannot be opened"),
        (Task("other"), "other: no such task"),
        (Task("bandwidth"), "working_set_bytes"),
    ],
)
def test_a_task_that_fails_is_told(program: Path, tmp_path: Path, task: Task, said: str) -> None:
    (tmp_path / "block").write_bytes(b"1234")
    assert said in asked(program, tmp_path, task)["error"]["text"]
    assert not (tmp_path / "d").exists()


def chain(expected: np.ndarray[Any, Any]) -> bytes:
    """x1 = x0 + 0 / (w == expected), w [64] at byte 256 of the data file: no number where they differ."""
    w = TensorProto(name="w", dims=[64], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "b.data"), ("offset", "256"), ("length", "256")):
        w.external_data.add(key=key, value=value)
    constants = [w, numpy_helper.from_array(expected, "expected"), numpy_helper.from_array(np.float32([0]), "zero")]
    nodes = [
        helper.make_node("Equal", ["w", "expected"], ["equal"]),
        helper.make_node("Cast", ["equal"], ["same"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["zero", "same"], ["y"]),
        helper.make_node("Add", ["x0", "y"], ["x1"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 64]) for name in ("x0", "x1")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    found: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()
    return found


def test_repetitions_are_rotated_as_python_does(program: Path, tmp_path: Path) -> None:
    tensor = BlockTensor(0, 256, 128, 4)
    np.arange(64, dtype=np.float32).tofile(tmp_path / "b.block")
    rotated = np.float32([31, *range(31), 63, *range(32, 63)])  # each half by one element
    expand(tmp_path / "b.block", (tensor,), 2, tmp_path / "b.data")
    assert (np.fromfile(tmp_path / "b.data", np.float32)[64:] == rotated).all()
    task = Task("benchmark", graph="g", block="b.block", data="b.data", tensors=(tensor,), repeats=2)
    (tmp_path / "g").write_bytes(chain(rotated))
    assert PROBED in asked(program, tmp_path, task)
    (tmp_path / "g").write_bytes(chain(np.arange(64, dtype=np.float32)))
    assert "run away" in asked(program, tmp_path, task)["error"]["text"]


def test_a_platform_without_a_program() -> None:
    with pytest.raises(NotAvailable, match=r"no slmc-run for linux-aarch64.*given for linux-x86_64.*--runtime FILE"):
        given_program({"linux-x86_64": Path("p")}, "linux-aarch64")
