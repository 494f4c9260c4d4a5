"""Models of one of our nodes, run by the native operators, and what is asked of matrix products.

Importing this skips the test module where the operators were not compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.artifact.errors import NotAvailable
from exporters.artifact.native_library import library_path
from exporters.ops.signatures import DOMAIN

try:
    LIBRARY = str(library_path())
except NotAvailable as missing:
    pytest.skip(str(missing), allow_module_level=True)

Arrays = Mapping[str, np.ndarray]


def opened(model: onnx.ModelProto, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    for names in ("ai.slmc.bodies", "ai.slmc.fused"):
        options.add_session_config_entry(names, "1")  # further names of operators cost every session some milliseconds
    options.register_custom_ops_library(LIBRARY)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def session(
    operator: str,
    inputs: Arrays,
    constants: Arrays,
    order: Sequence[str],
    outputs: Sequence[str] = ("y",),
    threads: int = 1,
    **attributes: float,
) -> ort.InferenceSession:
    """A model of one node. `order` names its inputs; those in neither mapping are left out."""
    names = [name if name in {**inputs, **constants} else "" for name in order]
    while names and not names[-1]:
        names.pop()
    kinds = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in inputs.items()}
    graph = helper.make_graph(
        [helper.make_node(operator, names, list(outputs), domain=DOMAIN, **attributes)],
        "one",
        [helper.make_tensor_value_info(n, kind, None) for n, kind in kinds.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    return opened(helper.make_model(graph, opset_imports=opsets, ir_version=9), threads)


def close(actual: np.ndarray, x: np.ndarray, w: np.ndarray) -> None:
    """y = x w^T to float32's rounding, measured by the size of the terms summed."""
    expected = np.asarray(x, np.float64) @ w.T
    allowed = 4e-6 * (np.abs(x).astype(np.float64) @ np.abs(w).T) + 1e-6
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    assert (np.abs(actual - expected) <= allowed).all(), np.abs((actual - expected) / allowed).max()


def refused(message: str, make: Callable[[], object]) -> None:
    """ONNX Runtime refuses what `make` asks of it, for this reason."""
    with pytest.raises(Exception, match=message) as caught:
        make()
    assert type(caught.value).__module__.startswith("onnxruntime")
