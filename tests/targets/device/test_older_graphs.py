"""Artifacts whose bodies share a name: refused where a runtime would take the wrong one, in one line."""

from __future__ import annotations

from dataclasses import replace

import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, parser

from exporters.artifact.errors import NotAvailable
from targets.device.older_graphs import refuse_shared_names, runtime_version
from targets.device.session import open_session


def function(name: str, overload: str, operator: str):
    header = (
        f'<domain: "ai.slmc", opset_import: ["" : 21]{f", overload: {chr(34)}{overload}{chr(34)}" if overload else ""}>'
    )
    return parser.parse_function(f"{header} {name} (x) => (y) {{ y = {operator}(x) }}")


def graph(path, *functions):
    nodes = [
        helper.make_node(f.name, [f"v{i}"], [f"v{i + 1}"], domain="ai.slmc", overload=f.overload)
        for i, f in enumerate(functions)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("v0", f"v{len(functions)}")]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.slmc", 1)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=opsets, ir_version=10, functions=functions
    )
    path.write_bytes(model.SerializeToString())
    return path


SHARED = (function("QLinear", "int8", "Neg"), function("Lif", "", "Abs"), function("QLinear", "int4", "Relu"))
OWN = (function("QLinear", "int8", "Neg"), function("QLinear_2", "", "Abs"))


@pytest.mark.parametrize("runtime", ["1.24.1", "1.26.0", "1.9.0"])
def test_an_older_runtime_is_refused(tmp_path, runtime):
    path = graph(tmp_path / "model.onnx", *SHARED)
    with pytest.raises(NotAvailable) as refused:
        refuse_shared_names(path, runtime)
    assert str(refused.value) == (
        f"{path}: 2 bodies are named QLinear, and ONNX Runtime {runtime} takes one for all; use onnxruntime 1.27 or "
        "later, or the compiled operators, or build the artifact again"
    )


@pytest.mark.parametrize(
    ("functions", "runtime"), [(SHARED, "1.27.0"), (SHARED, "1.31.1"), (SHARED, "2.0"), (OWN, "1.24.1"), ((), "1.24.1")]
)
def test_what_is_right_is_not(tmp_path, functions, runtime):
    refuse_shared_names(graph(tmp_path / "model.onnx", *functions), runtime)


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, b"\xca\x01\xff\xff\xff\xff\xff\x7f", b"no model"])
def test_damage_is_left_to_the_runtime(tmp_path, damage):
    path = tmp_path / "model.onnx"
    path.write_bytes(damage)
    refuse_shared_names(path, "1.24.1")


def test_a_session_of_an_older_artifact_is_refused(toy, tmp_path, monkeypatch):
    path = graph(tmp_path / "model.onnx", *SHARED)
    monkeypatch.setattr(ort, "__version__", "1.26.0")
    with pytest.raises(NotAvailable, match="2 bodies are named QLinear"):
        open_session(path, replace(toy.io, bodies=None), native=None)


def test_versions():
    assert [runtime_version(text) for text in ("1.27.0", "1.31.1.dev2", "x")] == [(1, 27), (1, 31), (0, 0)]
