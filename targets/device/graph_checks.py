"""A graph compared with its manifest, and what ONNX Runtime says of it in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.manifest import Io

_ONNX_TYPES: Final = {
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "float16": "tensor(float16)",
    "int64": "tensor(int64)",
    "int32": "tensor(int32)",
    "int8": "tensor(int8)",
    "uint8": "tensor(uint8)",
    "bool": "tensor(bool)",
}
_ERROR_CODE: Final = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_DATA_FILE_WORDS: Final = ("External data path", "External initializer", "No such file")


def check_io(graph: Path, inference: Any, io: Io) -> int:
    """The width of the logits, after the graph's names, types and fixed dimensions were compared with `io`."""
    inputs = {value.name: value for value in inference.get_inputs()}
    outputs = {value.name: value for value in inference.get_outputs()}
    _check_value(graph, "input", inputs, io.tokens, "int64", (1, None))
    for state in io.states:
        if any(dim < 1 for dim in state.shape):
            raise SlmcError(
                f"{graph}: state {state.input!r} has shape {list(state.shape)}; every dimension must be 1 or more"
            )
        _check_value(graph, "input", inputs, state.input, state.dtype, state.shape)
        _check_value(graph, "output", outputs, state.output, state.dtype, state.shape)
    asked = {io.logits_from} if io.logits_from else set()
    for name in asked:
        _check_value(graph, "input", inputs, name, "int64", (1,))
    _check_value(graph, "output", outputs, io.logits, "float32", (1, 1 if io.classes else None, None))
    unnamed = sorted(inputs.keys() - {io.tokens, *(state.input for state in io.states)} - asked)
    if unnamed:
        raise SlmcError(f"{graph}: input {unnamed[0]!r} is not in the manifest's io; write the artifact again")
    width = outputs[io.logits].shape[2]
    if not isinstance(width, int) or (io.classes and width != len(io.classes.labels)):
        wanted = f"{len(io.classes.labels)}, a score per class" if io.classes else "a fixed number"
        raise SlmcError(f"{graph}: the last dimension of {io.logits!r} is {width!r}; it must be {wanted}")
    return width


def _check_value(
    graph: Path, side: str, values: dict[str, Any], name: str, dtype: str, shape: Sequence[int | None]
) -> None:
    if dtype not in _ONNX_TYPES:
        raise SlmcError(f"{graph}: {side} {name!r} has dtype {dtype!r}; allowed are {', '.join(_ONNX_TYPES)}")
    if name not in values:
        raise SlmcError(f"{graph}: no {side} {name!r}, which the manifest names; found {', '.join(sorted(values))}")
    found = values[name]
    dims = list(found.shape)
    same = len(dims) == len(shape) and all(
        a == b for a, b in zip(dims, shape, strict=True) if isinstance(a, int) and b is not None
    )
    if found.type != _ONNX_TYPES[dtype] or not same:
        wanted = f"{_ONNX_TYPES[dtype]} {['?' if d is None else d for d in shape]}"
        raise SlmcError(f"{graph}: {side} {name!r} is {found.type} {dims}, the manifest says {wanted}")


def load_error(graph: Path, native: Path | None, error: Exception) -> SlmcError:
    """The error of a session that could not be made, with the next step."""
    message = one_line(error)
    if isinstance(error, (ort_errors.InvalidProtobuf, ort_errors.InvalidArgument)):
        return SlmcError(f"{graph}: no ONNX model, or a damaged one ({message}); copy or build the artifact again")
    if isinstance(error, ort_errors.NoSuchFile) or any(words in message for words in _DATA_FILE_WORDS):
        return SlmcError(
            f"{graph}: its data file is missing or too short ({message}); "
            f"keep {graph.name}.data beside {graph.name}, or copy the artifact again"
        )
    if (
        isinstance(error, ort_errors.NotImplemented)
        or "not a registered function/op" in message
        or "max supported" in message
    ):
        library = f"operator library {native}" if native else "no operator library"
        return NotAvailable(
            f"{graph}: ONNX Runtime {ort.__version__} with {library} cannot run it ({message}); "
            "use a newer onnxruntime, or install slmc with its compiled operators"
        )
    return SlmcError(f"{graph}: ONNX Runtime {ort.__version__} does not open it: {message}")


def one_line(error: Exception) -> str:
    """What ONNX Runtime said, without its codes; errors come wrapped in each other and the innermost says why."""
    text = _ERROR_CODE.split(" ".join(str(error).split()))[-1].strip()
    return text if len(text) <= 300 else text[:297] + "..."
