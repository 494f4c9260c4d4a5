"""Which nodes of a graph become one: by hand on small graphs, and of the models that families describe."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.fusing import fuse
from exporters.ops.signatures import DOMAIN, FUSED

C = 4


def node(operator: str, inputs: str, outputs: str, **attributes: float | str) -> object:
    domain = DOMAIN if operator in ("RmsNorm", "HalfLinear", "CachedAttention", "ShiftMix2", "SpikeAdd") else ""
    return helper.make_node(operator, inputs.split(), outputs.split(), domain=domain, **attributes)


def graph_of(nodes: list[object], outputs: str, constants: dict[str, np.ndarray]) -> onnx_ir.Model:
    """A graph of x, z float32 [1, T, C] whose values all have that shape."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "T", C]) for name in ("x", "z")]
    made = sorted({name for n in nodes for name in n.output} - set(outputs.split()))  # type: ignore[attr-defined]
    graph = helper.make_graph(
        nodes, "g", values, [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, "T", C]) for n in outputs.split()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
        value_info=[helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, "T", C]) for n in made],
    )  # fmt: skip
    return onnx_ir.serde.deserialize_model(helper.make_model(graph))


MATRIX = np.zeros((C, C), np.float16)
CONSTANTS = {
    "scale": np.ones(C, np.float32), "a.q.w": MATRIX, "a.k.w": MATRIX, "m.up.w": MATRIX, "m.down.w": MATRIX,
    "half": np.array(0.5, np.float32), "table": np.ones((3, C), np.float32),
}  # fmt: skip
LAYER = [
    node("RmsNorm", "x scale", "n", epsilon=0.0),
    node("HalfLinear", "n a.q.w", "q"),
    node("HalfLinear", "n a.k.w", "k"),
    node("Tanh", "q", "q1"),
    node("HalfLinear", "q1 a.q.w", "o"),
    node("Add", "x o", "h"),
    node("RmsNorm", "h scale", "n2", epsilon=0.0),
    node("HalfLinear", "n2 m.up.w", "u"),
    node("Relu", "u", "r"),
    node("HalfLinear", "r m.down.w", "d"),
    node("Add", "h d", "y"),
    node("Mul", "y half", "logits"),
]


def told(model: onnx_ir.Model) -> list[str]:
    """Operators in order, of fused nodes their steps without inputs."""
    found = []
    for n in model.graph:
        text = n.attributes["steps"].as_string() if n.op_type == FUSED else n.op_type
        found.append(" ".join(line.split(" ")[0] for line in text.split("\n")[:-1]) if n.op_type == FUSED else text)
    return found


def test_a_layer_by_hand():
    model = graph_of(LAYER, "logits k", CONSTANTS)
    made = fuse(model)
    assert told(model) == [
        "RmsNorm HalfLinear HalfLinear",
        "Tanh",
        "HalfLinear Add",
        "RmsNorm HalfLinear Relu HalfLinear Add",
        "Mul",
    ]
    assert [n.name for n, _ in made] == ["a", "a.q", "m"]
    first, second, third = (n for n, _ in made)
    assert [x.name for x in first.inputs] == ["x", "scale", "a.q.w", "a.k.w"]
    assert [y.name for y in first.outputs] == ["q", "k"] and [y.name for y in third.outputs] == ["y"]
    assert [x.name for x in second.inputs] == ["q1", "a.q.w", "x"]
    assert first.attributes["steps"].as_string() == (
        "RmsNorm i0 i1 epsilon=0x0.0p+0\nHalfLinear v0 i2\nHalfLinear v0 i3\nout v1 v2"
    )


def test_what_is_no_step_comes_first_so_that_runs_are_long():
    """Tanh of z stands in the middle and depends on nothing there; one product does not wait for Exp, the sum does."""
    nodes = [
        node("RmsNorm", "x scale", "n", epsilon=0.0),
        node("Tanh", "z", "t"),
        node("Mul", "n t", "p"),
        node("Exp", "p", "e"),
        node("Mul", "p p", "s"),
        node("Add", "e s", "sum"),
        node("Mul", "sum half", "logits"),
    ]
    model = graph_of(nodes, "logits", CONSTANTS)
    fuse(model)
    assert told(model) == ["Tanh", "RmsNorm Mul Mul", "Exp", "Add", "Mul"]


def test_products_of_one_level_stand_side_by_side():
    nodes = [
        node("HalfLinear", "x m.up.w", "u"),
        node("Sigmoid", "u", "s"),
        node("HalfLinear", "x m.down.w", "d"),
        node("Mul", "s d", "y"),
        node("Mul", "y half", "logits"),
    ]
    model = graph_of(nodes, "logits", CONSTANTS)
    fuse(model)
    assert told(model) == ["HalfLinear HalfLinear Sigmoid Mul", "Mul"]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node("Add", "x table", "y"), node("Relu", "y", "r")], ["Add", "Relu"]),  # a constant of another shape
        (
            [node("LayerNormalization", "x scale scale", "y", axis=1, epsilon=0.1), node("Relu", "y", "r")],
            ["LayerNormalization", "Relu"],
        ),
        (
            [node("LayerNormalization", "x scale scale", "y", axis=-1), node("Relu", "y", "r")],
            ["LayerNormalization", "Relu"],
        ),
        (
            [node("LayerNormalization", "x scale", "y", axis=-1, epsilon=0.1), node("Relu", "y", "r")],
            ["LayerNormalization", "Relu"],
        ),
        (
            [node("LayerNormalization", "x scale scale", "y", axis=-1, epsilon=0.1), node("Relu", "y", "r")],
            ["LayerNormalization Relu"],
        ),
        ([node("Relu", "x", "y"), node("Add", "y scale", "r")], ["Relu Add"]),
        ([node("Mul", "half x", "y"), node("Gelu", "y", "r", approximate="tanh")], ["Mul Gelu"]),
        ([node("Tanh", "x", "y"), node("Relu", "y", "r")], ["Tanh", "Relu"]),  # one node alone stays as it is
    ],
)
def test_what_may_be_a_step(nodes, expected):
    model = graph_of([*nodes, node("Exp", "r", "logits")], "logits", CONSTANTS)
    fuse(model)
    assert told(model) == [*expected, "Exp"]
