"""Models that cannot be opened: each says in one line what is wrong with which file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import pytest
from onnx import helper

from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.manifest import Io
from targets.device.session import Session, open_session


def opened(toy) -> Session:
    return open_session(toy.artifact / "model.onnx", toy.io, native=None)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("model.onnx", b"this is no model", "no ONNX model, or a damaged one"),
        ("model.onnx", b"", "no ONNX model, or a damaged one"),
        ("model.onnx", None, "no such file"),
        ("model.onnx.data", None, r"its data file is missing or too short .*keep model\.onnx\.data beside"),
        ("model.onnx.data", b"1234", "its data file is missing or too short"),
    ],
)
def test_files_that_are_missing_or_damaged(toy, name, data, message):
    (toy.artifact / name).unlink()
    if data is not None:
        (toy.artifact / name).write_bytes(data)
    with pytest.raises(SlmcError, match=message):
        opened(toy)


def test_shape_constants_outside_the_model_are_not_blamed_on_the_data_file(toy):
    """ONNX Runtime wants them inside; the data file is whole."""
    model = onnx.load(toy.artifact / "model.onnx")
    (toy.artifact / "model.onnx").unlink()
    (toy.artifact / "model.onnx.data").unlink()
    onnx.save(
        model, toy.artifact / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0
    )
    with pytest.raises(SlmcError, match=r"does not open it: .*Cannot parse data from external tensors"):
        opened(toy)


def test_unknown_operator(tmp_path: Path, toy):
    model = onnx.load(toy.artifact / "model.onnx")
    model.graph.node[-1].op_type, model.graph.node[-1].domain = "Nothing", "ai.nowhere"
    model.opset_import.append(helper.make_opsetid("ai.nowhere", 1))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(NotAvailable, match=r"no operator library cannot run it .*Nothing"):
        open_session(tmp_path / "model.onnx", toy.io, native=None)


def test_library_that_does_not_load(toy, tmp_path: Path):
    library = tmp_path / "libslmc_ops.so"
    library.write_bytes(b"no library")
    with pytest.raises(NotAvailable, match=r"libslmc_ops\.so: ONNX Runtime .* cannot load this operator library"):
        open_session(toy.artifact / "model.onnx", toy.io, native=library)


def with_state(io: Io, **changes: object) -> Io:
    return dataclasses.replace(io, states=(dataclasses.replace(io.states[0], **changes), *io.states[1:]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"input": "elsewhere"}, "no input 'elsewhere', which the manifest names; found before_in, tokens, total_in"),
        ({"output": "elsewhere"}, "no output 'elsewhere'"),
        (
            {"shape": (1, 3)},
            r"input 'total_in' is tensor\(float\) \[1, 2\], the manifest says tensor\(float\) \[1, 3\]",
        ),
        ({"shape": (2,)}, "the manifest says"),
        ({"shape": (1, -2)}, r"state 'total_in' has shape \[1, -2\]; every dimension must be 1 or more"),
        ({"dtype": "float16"}, r"the manifest says tensor\(float16\)"),
        ({"dtype": "complex64"}, "has dtype 'complex64'; allowed are float32"),
    ],
)
def test_manifest_and_graph_disagree(toy, change, said):
    with pytest.raises(SlmcError, match=said):
        open_session(toy.artifact / "model.onnx", with_state(toy.io, **change), native=None)


def test_state_that_the_manifest_forgot(toy):
    io = dataclasses.replace(toy.io, states=toy.io.states[:1])
    with pytest.raises(SlmcError, match="input 'before_in' is not in the manifest's io"):
        open_session(toy.artifact / "model.onnx", io, native=None)
