"""Our tensors of 2, 4 and 8 bits are MatMulNBits' own layout: ONNX Runtime reads them and finds the same matrix."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.formats.catalog import format_named
from exporters.formats.integer import GROUPS


def read_by_runtime(codes: np.ndarray, scales: np.ndarray, K: int, bits: int, group: int) -> np.ndarray:
    """The matrix [N, K] as com.microsoft::MatMulNBits sees it: its products with the unit vectors."""
    N = len(codes)
    node = helper.make_node(
        "MatMulNBits", ["x", "codes", "scales"], ["y"], domain="com.microsoft", K=K, N=N, bits=bits, block_size=group
    )
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, N])],
        [numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(scales.astype(np.float32), "scales")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.eye(K, dtype=np.float32)})
    return y.T


def test_by_hand():
    """Bytes 0x69 and 0x08: codes 9, 6, 8, 0 less 8, times 0.5."""
    codes = np.full((1, 1, 8), 0x88, np.uint8)
    codes[0, 0, :2] = 0x69, 0x08
    expected = [[0.5, -1.0, 0.0, -4.0]]
    np.testing.assert_array_equal(read_by_runtime(codes, np.array([[0.5]]), 4, 4, 16), expected)


@pytest.mark.parametrize("K", [5, 64, 70, 256])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_every_group_and_width(bits, group, K):
    rng = np.random.default_rng([bits, group, K])
    fmt = format_named(f"int{bits}-g{group}")
    encoded = fmt.encode(rng.normal(0, 1, (7, K)).astype(np.float32))
    seen = read_by_runtime(encoded.packed["codes"], encoded.packed["scales"], K, bits, group)
    np.testing.assert_array_equal(seen, fmt.decode(encoded))
