"""The library beside old runtimes, in several sessions and threads at once, and under damaged weights."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from exporters.ops.signatures import DOMAIN, VERSION

GET_API = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)
CREATE_STATUS = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)


class ApiBase(ctypes.Structure):
    _fields_ = (("GetApi", GET_API), ("GetVersionString", ctypes.c_void_p))


def test_an_older_runtime_is_refused(native_path, pytestconfig):
    """One whose table ends before version 18: only the first of its functions is used, to say so."""
    if pytestconfig.pluginmanager.hasplugin("child_runtime"):
        pytest.skip("calls the library in this process, which may be another machine's or need a sanitizer")
    said = []
    create = CREATE_STATUS(lambda code, text: said.append((code, text)) or 77)
    table = (ctypes.c_void_p * 1)(ctypes.cast(create, ctypes.c_void_p).value)
    get_api = GET_API(lambda version: None if version >= 18 else ctypes.addressof(table))
    register = ctypes.CDLL(native_path).RegisterCustomOps
    register.restype = ctypes.c_void_p
    assert register(None, ctypes.byref(ApiBase(get_api, None))) == 77
    assert said == [(1, b"ai.slmc needs ONNX Runtime 1.24 or later")]


def int4_model(rows: int = 1024, columns: int = 1024) -> tuple[object, np.ndarray]:
    """A product large enough for threads, as a model and its weights."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (rows, columns // 32, 16), dtype=np.uint8)
    scales = rng.uniform(0.01, 0.02, (rows, columns // 32)).astype(np.float16)
    node = helper.make_node(
        "QLinear", ["x", "codes", "scales"], ["y"], domain=DOMAIN, K=columns, N=rows, bits=4, group=32
    )
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", 1, [None, columns])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(scales, "scales")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    both = np.stack([codes & 15, codes >> 4], -1).reshape(rows, -1, 32)
    return model, ((both - 8.0) * scales[..., None]).reshape(rows, columns)


def opened(model, native_path: str, threads: int = 1):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(native_path)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("threads", [1, 2])
def test_sessions_at_once(native_path, threads):
    """Two sessions, each called from two threads with different inputs and lengths."""
    model, w = int4_model()
    sessions = [opened(model, native_path, threads) for _ in range(2)]
    rng = np.random.default_rng(1)
    inputs = [rng.standard_normal((1 + i % 5, w.shape[1])).astype(np.float32) for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda i: sessions[i % 2].run(None, {"x": inputs[i]})[0], range(len(inputs))))
    for x, y in zip(inputs, answers, strict=True):
        np.testing.assert_allclose(y, x @ w.T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["codes", "scales"])
@pytest.mark.parametrize("keep", [0, 100, -1])
def test_truncated_weights_are_refused(native_path, name, keep):
    model, _ = int4_model(64, 64)
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.raw_data = tensor.raw_data[:keep]
    with pytest.raises(Exception) as refused:
        opened(model, native_path)
    assert "ONNXRuntimeError" in str(refused.value)
