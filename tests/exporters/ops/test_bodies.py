"""Every function body has a name of its own, the operator's or a numbered one."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from exporters.artifact.ranges import MOST_BODIES
from exporters.ops.bodies import Bodies, operator_of
from exporters.ops.functions import OPSET, plain_functions, qlinear_function
from exporters.ops.signatures import DOMAIN, VERSION
from targets.device.session import BODIES_OPTION


def test_bodies_are_numbered_and_equal_ones_kept_once():
    bodies = Bodies()
    three, four = qlinear_function(3, 32, False, 32, 0), qlinear_function(4, 32, True, 32, 0)
    names = [bodies.name(body) for body in (three, four, three, plain_functions()["Lif"], four)]
    assert names == ["QLinear", "QLinear_2", "QLinear", "Lif", "QLinear_2"]
    assert [body.name for body in bodies.functions] == ["QLinear", "QLinear_2", "Lif"]
    assert bodies.functions[1].node == four.node and bodies.most == 2 and Bodies().most == 1


@pytest.mark.parametrize(
    ("name", "operator"),
    [("QLinear", "QLinear"), ("QLinear_12", "QLinear"), ("CachedAttentionInt8", "CachedAttentionInt8"),
     ("Some_Name", "Some_Name"), ("_2", "_2")],
)  # fmt: skip
def test_operator_of_a_name(name, operator):
    assert operator_of(name) == operator


def no_body(name: str) -> bytes:
    """y = name(x, codes, scales) of eight weights 1, without a function body."""
    attributes = {"K": 8, "N": 1, "bits": 8, "group": 8, "activation_bits": 32, "tile": 0}
    node = helper.make_node(name, ["x", "codes", "scales"], ["y"], domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node], "one", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("codes", TensorProto.UINT8, [1, 1, 8], [129] * 8),
         helper.make_tensor("scales", TensorProto.FLOAT16, [1, 1], [1.0])],
    )  # fmt: skip
    opsets = [helper.make_opsetid(d, v) for d, v in (("", OPSET), (DOMAIN, VERSION))]
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return model


def opens(name: str, library: str, bodies: str | None) -> bool:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if bodies is not None:
        options.add_session_config_entry(BODIES_OPTION, bodies)
    options.register_custom_ops_library(library)
    try:
        session = ort.InferenceSession(no_body(name), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        assert "is not a registered function/op" in str(error)
        return False
    [y] = session.run(None, {"x": np.arange(8, dtype=np.float32)[None]})
    return bool(y == 28.0)


@pytest.mark.parametrize(
    ("bodies", "most"), [(None, 16), ("1", 1), ("3", 3), ("40", 40), ("0", 1), ("-5", 1), ("none", 1)]
)
def test_the_library_serves_as_many_names_as_a_session_asks_for(native_path, bodies, most):
    names = ["QLinear", *(f"QLinear_{number}" for number in range(2, most + 2))]
    assert [opens(name, native_path, bodies) for name in (names[0], names[most - 1], names[most])] == [
        True,
        True,
        False,
    ]


def test_no_option_asks_for_more_names_than_there_may_be(native_path):
    assert opens(f"QLinear_{MOST_BODIES}", native_path, "999999999")
    assert not opens(f"QLinear_{MOST_BODIES + 1}", native_path, "999999999")
