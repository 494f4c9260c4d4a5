"""A small recurrent model on disk, for all tests of this floor, with its logits computed by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from machines import measurement_with
from onnx import TensorProto, helper, numpy_helper

from exporters.artifact.manifest import Bytes, ClassScores, FileEntry, Io, Manifest, Producer, Source, State
from targets.device.measurement import Measurement


class Toy(NamedTuple):
    """artifact: a folder with model.onnx and model.onnx.data. logits [3, 3] belong to the tokens, read from the start.

    e = embedding[token], total = fill_a + e summed so far, before = the embedding one token earlier (at first fill_b)
    logits = [total0, total1, total0 + total1] + 10 before0
    """

    artifact: Path
    io: Io
    tokens: tuple[int, ...]
    logits: np.ndarray


def _constant(name: str, values: object, dtype: type) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype), name)


def toy_model() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gather", ["embedding", "tokens"], ["e"]),
        helper.make_node("CumSum", ["e", "one"], ["sums"]),
        helper.make_node("Add", ["sums", "total_in"], ["total"]),
        helper.make_node("Gather", ["total", "last"], ["total_out"], axis=1),
        helper.make_node("Unsqueeze", ["before_in", "ones"], ["before_first"]),
        helper.make_node("Concat", ["before_first", "e"], ["shifted_all"], axis=1),
        helper.make_node("Slice", ["shifted_all", "zeros", "minus_ones", "ones"], ["before"]),
        helper.make_node("Gather", ["e", "last"], ["before_out"], axis=1),
        helper.make_node("MatMul", ["total", "head"], ["from_total"]),
        helper.make_node("MatMul", ["before", "head_before"], ["from_before"]),
        helper.make_node("Add", ["from_total", "from_before"], ["logits"]),
    ]
    constants = [
        _constant("embedding", [[1, 0], [0, 2], [3, 1]], np.float32),
        _constant("head", [[1, 0, 1], [0, 1, 1]], np.float32),
        _constant("head_before", [[10, 10, 10], [0, 0, 0]], np.float32),
        _constant("one", 1, np.int64),
        _constant("last", -1, np.int64),
        _constant("zeros", [0], np.int64),
        _constant("ones", [1], np.int64),
        _constant("minus_ones", [-1], np.int64),
    ]
    real = TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "T"]),
        helper.make_tensor_value_info("total_in", real, [1, 2]),
        helper.make_tensor_value_info("before_in", real, [1, 2]),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", real, [1, "T", 3]),
        helper.make_tensor_value_info("total_out", real, [1, 2]),
        helper.make_tensor_value_info("before_out", real, [1, 2]),
    ]
    graph = helper.make_graph(nodes, "toy", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    artifact = tmp_path / "toy"
    artifact.mkdir()
    # onnx adds 33 bytes of Python object to a tensor's size; constants that give shapes must stay inside the model.
    onnx.save(
        toy_model(), artifact / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=50
    )
    io = Io(
        "tokens",
        "logits",
        (
            State("total_in", "total_out", (1, 2), "float32", 0.5),
            State("before_in", "before_out", (1, 2), "float32", -1.0),
        ),
    )
    # total after each token: (3.5, 1.5), (4.5, 1.5), (4.5, 3.5); 10 before0: -10, 30, 10
    logits = np.array([[-6.5, -8.5, -5.0], [34.5, 31.5, 36.0], [14.5, 13.5, 18.0]], np.float32)
    return Toy(artifact, io, (2, 0, 1), logits)


@pytest.fixture
def whole_toy(tmp_path: Path) -> Toy:
    """A classifier of whole texts without states: scores = the mean of embedding[token] over all tokens of a call."""
    artifact = tmp_path / "whole"
    artifact.mkdir()
    nodes = [
        helper.make_node("Gather", ["embedding", "tokens"], ["e"]),
        helper.make_node("ReduceMean", ["e", "axes"], ["logits"], keepdims=1),
    ]
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "T"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1, 2])
    constants = [_constant("embedding", [[1, 0], [0, 2], [3, 1]], np.float32), _constant("axes", [1], np.int64)]
    graph = helper.make_graph(nodes, "whole", [tokens], [logits], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9),
              artifact / "model.onnx")  # fmt: skip
    io = Io("tokens", "logits", (), 4, ClassScores(("bad", "good"), 3, whole_texts=True))
    return Toy(artifact, io, (2, 0, 1), np.array([[4 / 3, 1]], np.float32))


@pytest.fixture
def shifting(tmp_path: Path) -> Toy:
    """The toy without sums, of operators that slmc-run has: logits = [e0, e1, e0 + e1] + 10 before0."""
    nodes, kept = (
        list(toy_model().graph.node),
        {"e", "before_first", "shifted_all", "before", "before_out", "from_before"},
    )
    nodes = [node for node in nodes if node.output[0] in kept]
    nodes.append(helper.make_node("MatMul", ["e", "head"], ["from_e"]))
    nodes.append(helper.make_node("Add", ["from_e", "from_before"], ["logits"]))
    model = toy_model()
    graph = helper.make_graph(
        nodes, "shifting", [p for p in model.graph.input if p.name != "total_in"],
        [p for p in model.graph.output if p.name != "total_out"], model.graph.initializer,
    )  # fmt: skip
    (tmp_path / "shifting").mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
              tmp_path / "shifting" / "model.onnx", save_as_external_data=True, location="model.onnx.data",
              size_threshold=50)  # fmt: skip
    io = Io("tokens", "logits", (State("before_in", "before_out", (1, 2), "float32", -1.0),))
    # e after each token: (3, 1), (1, 0), (0, 2); 10 before0: -10, 30, 10
    logits = np.array([[-7, -9, -6], [31, 30, 31], [10, 12, 12]], np.float32)
    return Toy(tmp_path / "shifting", io, (2, 0, 1), logits)


@pytest.fixture
def packed(toy: Toy) -> Toy:
    """The toy as an artifact."""
    return _packed(toy)


@pytest.fixture
def runnable(shifting: Toy) -> Toy:
    """The shifting toy as an artifact."""
    return _packed(shifting)


@pytest.fixture
def packed_whole(whole_toy: Toy) -> Toy:
    """The classifier as an artifact."""
    return _packed(whole_toy)


def _packed(toy: Toy) -> Toy:
    """A toy as an artifact: with a manifest that lists its files, and checksums of all."""
    files = {path.name: path.read_bytes() for path in sorted(toy.artifact.iterdir())}
    manifest = Manifest(
        schema_version=1,
        producer=Producer("slmc", "0.1.0"),
        created="2025-01-01T00:00:00+00:00",
        source=Source("toy", "toy", "ab" * 32, 12),
        io=toy.io,
        recipe={},
        bytes=Bytes(100, 100, 16, sum(map(len, files.values()))),
        quality=None,
        parity=None,
        measured=None,
        constraints=(),
        files={name: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()},
    )
    files["manifest.json"] = manifest.to_json().encode()
    (toy.artifact / "manifest.json").write_bytes(files["manifest.json"])
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    (toy.artifact / "SHA256SUMS").write_text(sums)
    return toy


@pytest.fixture
def measurement() -> Callable[..., Measurement]:
    """Two repetitions of three tokens, with any fields changed: measurement(threads=2)."""
    return measurement_with
