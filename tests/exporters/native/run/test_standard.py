"""Standard operators of our own runtime beside ONNX Runtime, and graphs that it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from driven import Driver, Refused
from onnx import TensorProto, helper, numpy_helper

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


END = np.iinfo(np.int64).max
Case = tuple[str, list[np.ndarray], dict[str, Any]]
CASES: list[Case] = [
    ("Add", [floats(2, 3, 4), floats(4)], {}),
    ("Add", [floats(2, 3, 1), floats(1, 3, 4)], {}),
    ("Add", [floats(), floats(2)], {}),
    ("Add", [ints(1, END), ints(2, 1)], {}),
    ("Mul", [floats(2, 3), floats(2, 3)], {}),
    ("Sub", [ints(1, 2), ints(3, 4)], {}),
    ("Div", [floats(2, 1), floats(1, 3)], {}),
    ("Div", [ints(7, -7), ints(2, 2)], {}),
    ("Pow", [floats(2, 3), np.array(2, np.float32)], {}),
    ("Pow", [np.abs(floats(2, 3)), np.array(0.5, np.float32)], {}),
    ("Greater", [floats(3), floats(3)], {}),
    ("GreaterOrEqual", [floats(3), np.array(0, np.float32)], {}),
    ("Less", [floats(3), floats(3)], {}),
    ("LessOrEqual", [ints(1, 2), ints(1, 1)], {}),
    ("Equal", [ints(1, 2), ints(1, 1)], {}),
    *(
        (name, [floats(3, 5) * 3], {})
        for name in ("Tanh", "Relu", "Gelu", "Neg", "Erf", "Exp", "Cos", "Sin", "Sigmoid", "Identity", "Abs")
    ),
    ("Round", [np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.4999, -7.6], np.float32)], {}),
    ("Gelu", [floats(9)], {"approximate": "tanh"}),
    ("Reciprocal", [floats(3) + 3], {}),
    ("Sqrt", [np.abs(floats(3))], {}),
    ("Where", [floats(3, 1) > 0, floats(3, 4), floats(1, 4)], {}),
    ("Cast", [floats(3) > 0], {"to": TensorProto.FLOAT}),
    ("Cast", [floats(3).astype(np.float16)], {"to": TensorProto.FLOAT}),
    ("Cast", [ints(1, 2)], {"to": TensorProto.FLOAT}),
    ("Shape", [floats(2, 3, 4)], {"start": 1, "end": -1}),
    ("Squeeze", [floats(1, 3, 1), ints(0)], {}),
    ("Squeeze", [floats(1, 3, 1)], {}),
    ("Unsqueeze", [floats(2, 3), ints(0, -1)], {}),
    ("Reshape", [floats(2, 6), ints(3, -1)], {}),
    ("Reshape", [floats(2, 6), ints(0, 2, 3)], {}),
    ("Flatten", [floats(2, 3, 4)], {"axis": 2}),
    ("Transpose", [floats(2, 3, 4)], {"perm": [2, 0, 1]}),
    ("Transpose", [floats(2, 3, 4)], {}),
    ("Concat", [floats(2, 3), floats(2, 1)], {"axis": 1}),
    ("Concat", [floats(2, 3), floats(1, 3)], {"axis": 0}),
    ("Expand", [floats(2, 1), ints(3, 1, 4)], {}),
    ("Expand", [np.array(1, np.float32), ints(2, 2)], {}),
    ("Slice", [floats(5, 6), ints(1), ints(4), ints(1)], {}),
    ("Slice", [floats(5, 6), ints(-3, 0), ints(END, 5), ints(0, 1), ints(1, 2)], {}),
    ("Slice", [floats(5), ints(4), ints(2), ints(0)], {}),
    ("Gather", [floats(5, 3), ints(0, 4, -1)], {}),
    ("Gather", [floats(5, 3), np.array(1)], {"axis": 1}),
    ("Gather", [floats(2, 5, 3), np.array([[1, 2]])], {"axis": 1}),
    ("Range", [np.array(2), np.array(9), np.array(3)], {}),
    ("ReduceMean", [floats(2, 3, 4), ints(-1)], {"keepdims": 1}),
    ("ReduceMean", [floats(2, 3, 4), ints(0, 2)], {"keepdims": 0}),
    ("ReduceMean", [floats(2, 3, 4), ints(0)], {}),
    ("ReduceSum", [floats(2, 3, 4), ints(1)], {"keepdims": 0}),
    ("ReduceSum", [floats(2, 3, 4)], {}),
    ("ReduceMax", [floats(2, 3, 4), ints(-1)], {"keepdims": 1}),
    ("ReduceMax", [floats(2, 3, 4) - 9, ints(0, 2)], {"keepdims": 0}),
    ("Softmax", [floats(2, 3, 40) * 30], {"axis": -1}),
    ("LayerNormalization", [floats(2, 3, 64), floats(64), floats(64)], {"epsilon": 1e-5}),
    ("LayerNormalization", [floats(2, 33), floats(33)], {}),
    ("MatMul", [floats(1, 5, 64), floats(64, 100)], {}),
    ("MatMul", [floats(2, 4, 3, 8), floats(2, 4, 8, 5)], {}),
    ("MatMul", [floats(3, 8), floats(2, 8, 77)], {}),
    ("MatMul", [floats(2, 1, 3, 8), floats(1, 4, 8, 5)], {}),
    ("MatMul", [floats(1, 200), floats(200, 1300)], {}),
]


def model_of(
    operator: str, inputs: list[np.ndarray], attributes: dict[str, Any], outputs: tuple[str, ...] = ("out",)
) -> onnx.ModelProto:
    names = [f"in_{i}" for i in range(len(inputs))]
    kinds = [helper.np_dtype_to_tensor_dtype(array.dtype) for array in inputs]
    fed = [helper.make_tensor_value_info(n, k, a.shape) for n, k, a in zip(names, kinds, inputs, strict=True)]
    node = helper.make_node(operator, names, outputs, **attributes)
    graph = helper.make_graph([node], "one", fed, [helper.make_empty_tensor_value_info(name) for name in outputs])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)])
def test_like_onnx_runtime(driver: Driver, case: Case) -> None:
    model, fed = model_of(*case), {f"in_{i}": array for i, array in enumerate(case[1])}
    options = ort.SessionOptions()
    options.log_severity_level = 4
    inferred = onnx.shape_inference.infer_shapes(model).SerializeToString()
    (expected,) = ort.InferenceSession(inferred, options, providers=["CPUExecutionProvider"]).run(None, fed)
    (found,) = driver.run(model.SerializeToString(), fed, ["out"])
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    size = np.abs(expected).max(initial=1) if expected.dtype == np.float32 else 0
    assert np.abs(found.astype(np.float64) - expected).max(initial=0) <= 4e-6 * size


THREE = ("a", "b", "c")


def pieces(driver: Driver, inputs: list[np.ndarray], attributes: dict[str, Any]) -> list[np.ndarray]:
    """The first input split in three."""
    model = model_of("Split", inputs, attributes, THREE)
    return driver.run(model.SerializeToString(), {f"in_{i}": array for i, array in enumerate(inputs)}, THREE)


@pytest.mark.parametrize(
    ("sizes", "attributes", "cuts"),
    [((ints(1, 3, 1),), {"axis": 1}, [1, 4]), ((), {"axis": -1, "num_outputs": 3}, [2, 4])],
    ids=["sizes", "equal, the last shorter"],
)
def test_split(driver: Driver, sizes: tuple[np.ndarray, ...], attributes: dict[str, int], cuts: list[int]) -> None:
    x = floats(2, 5)
    for piece, expected in zip(pieces(driver, [x, *sizes], attributes), np.split(x, cuts, 1), strict=True):
        np.testing.assert_array_equal(piece, expected)


def test_pieces_that_are_not_there(driver: Driver) -> None:
    with pytest.raises(Refused, match="its pieces are not those of"):
        pieces(driver, [floats(5), ints(1, 3, 2)], {})


def test_reductions_of_older_opsets_have_their_axes_as_an_attribute(driver: Driver) -> None:
    x = floats(2, 3, 4)
    for operator, opset, numpy_says in (("ReduceMean", 17, x.mean((0, 2))), ("ReduceSum", 12, x.sum((0, 2)))):
        model = model_of(operator, [x], {"axes": [0, -1], "keepdims": 0})
        model.opset_import[0].version = opset
        (found,) = driver.run(model.SerializeToString(), {"in_0": x}, ["out"])
        np.testing.assert_allclose(found, numpy_says, rtol=1e-5, atol=1e-6)


REFUSED: list[tuple[Case, str]] = [
    (("Conv", [floats(1, 1, 3), floats(1, 1, 1)], {}), "no operator Conv 'out'"),
    (("Add", [floats(2), floats(3)], {}), "[2] and [3] do not broadcast"),
    (("Add", [floats(2), ints(1, 2)], {}), "two float32 or two int64"),
    (("Gather", [floats(5, 3), ints(5)], {}), "index 5 is not in a table of 5 rows"),
    (("Gather", [floats(5, 3), ints(-6)], {}), "index -6"),
    (("Reshape", [floats(5), ints(2, -1)], {}), "[5] does not become"),
    (("Expand", [floats(1), ints(1 << 40)], {}), "larger than any that fits"),
    (("Range", [np.array(0), np.array(1 << 40), np.array(1)], {}), "a range of"),
    (("Transpose", [floats(2, 3)], {"perm": [0, 0]}), "an axis twice"),
    (("Softmax", [floats(2, 3)], {"axis": 0}), "last axis only"),
    (("MatMul", [floats(2, 3), floats(4, 2)], {}), "[2, 3] times [4, 2]"),
    (("Cast", [floats(2)], {"to": TensorProto.STRING}), "does not convert"),
]


@pytest.mark.parametrize(("case", "words"), REFUSED, ids=[case[0] + str(i) for i, (case, _) in enumerate(REFUSED)])
def test_refused(driver: Driver, case: Case, words: str) -> None:
    with pytest.raises(Refused) as refusal:
        driver.run(model_of(*case).SerializeToString(), {f"in_{i}": a for i, a in enumerate(case[1])}, ["out"])
    assert words in str(refusal.value)


def graph(nodes: list[onnx.NodeProto], constants: tuple[onnx.TensorProto, ...] = ()) -> bytes:
    made = helper.make_graph(nodes, "g", [], [helper.make_empty_tensor_value_info("out")], constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def test_graphs_that_are_not_sound(driver: Driver) -> None:
    one = numpy_helper.from_array(floats(2), "a")
    relu = helper.make_node("Relu", ["a"], ["out"])
    cases = [
        (graph([relu]), "nothing makes 'a'"),
        (graph([relu, relu], (one,)), "two things make 'out'"),
        (
            graph([helper.make_node("Relu", ["b"], ["out"]), helper.make_node("Relu", ["a"], ["b"])], (one,)),
            "makes 'b'",
        ),
        (b"\x0a\xff\xff\xff\xff\x0f", "damaged"),
        (b"\x3a\x05abc", "damaged"),
    ]
    for model, words in cases:
        with pytest.raises(Refused, match=words):
            driver.run(model, {}, ["out"])
    short = numpy_helper.from_array(floats(2), "a")
    short.raw_data = short.raw_data[:-1]
    with pytest.raises(Refused, match="7 bytes, its shape asks for 8"):
        driver.run(graph([relu], (short,)), {}, ["out"])


def test_values_outlive_what_is_made_between_them(driver: Driver) -> None:
    """Memory goes from one value to the next, but not while anything still reads it."""
    x = floats(3, 5)
    nodes = [
        helper.make_node("Neg", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Add", ["b", "x"], ["c"]),
        helper.make_node("Mul", ["c", "c"], ["d"]),
        helper.make_node("Add", ["d", "a"], ["out"]),
    ]
    fed = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 5])]
    made = helper.make_graph(nodes, "g", fed, [helper.make_empty_tensor_value_info("out")])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (found,) = driver.run(model.SerializeToString(), {"x": x}, ["out"])
    expected = np.square(np.maximum(-x, 0) + x) - x
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
