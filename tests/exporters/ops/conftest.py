"""The readings of an operator, each as one callable: torch, the ONNX function body, the native kernel in ONNX Runtime
and in our own runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from driven import Driver, command
from equations import integrate_fire_reference, lif_reference, wkv_reference
from fused import fed_array, fused_model, in_torch
from onnx import helper, numpy_helper

import exporters.ops.anchored
import exporters.ops.attention
import exporters.ops.channels
import exporters.ops.events
import exporters.ops.fusions
import exporters.ops.products
import exporters.ops.sparse_products
import exporters.ops.spikes
import exporters.ops.tables
import exporters.ops.ternary
from exporters.ops.body_table import body_of
from exporters.ops.functions import OPSET
from exporters.ops.signatures import DOMAIN, FUSED, SIGNATURES, VERSION
from exporters.ops.steps import STEPS

Arrays = Mapping[str, np.ndarray]
Reading = Callable[[str, Arrays, Mapping[str, Any]], list[np.ndarray]]
"""(operator, its inputs by name, its attributes) -> its outputs."""

BY_NAME = {signature.name: signature for signature in SIGNATURES}
FED = {
    "QLinear": 1,
    "QEmbedding": 1,
    "HalfLinear": 1,
    "SignEmbedding": 1,
    "Lif": 2,
    "Wkv": 7,
    "RmsNorm": 1,
    "ShiftMix2": 2,
    "ShiftMix3": 2,
    "GatedWkv": 8,
    "SpikeAdd": 3,
    "GatedSpikeAdd": 4,
    "SquaredRelu": 1,
    "SparseLinear": 1,
    "EventLinear": 1,
    "CachedAttention": 6,
    "CachedAttentionHalf": 6,
    "CachedAttentionInt8": 8,
    "IntegrateFire": 1,
    "Plif": 6,
    "LinearRecurrence": 3,
    "DeltaRule": 7,
    "AnchoredAttention": 8,
    "AnchoredAttentionInt8": 10,
    "TernaryLinear": 1,
    "TableLinear": 1,
    "TableEmbedding": 1,
}
"""How many of the first inputs change from call to call; the others are weights inside the model."""

KINDS = {
    "tensor(float)": onnx.TensorProto.FLOAT,
    "tensor(float16)": onnx.TensorProto.FLOAT16,
    "tensor(int8)": onnx.TensorProto.INT8,
}

REFERENCES: dict[str, Callable[..., Any]] = {
    "EventLinear": exporters.ops.events.event_linear,
    "QLinear": exporters.ops.products.qlinear,
    "QEmbedding": exporters.ops.products.qembedding,
    "HalfLinear": exporters.ops.products.half_linear,
    "SignEmbedding": exporters.ops.products.sign_embedding,
    "Lif": lif_reference,
    "Wkv": wkv_reference,
    "CachedAttention": exporters.ops.attention.cached_attention,
    "CachedAttentionHalf": exporters.ops.attention.cached_attention_half,
    "CachedAttentionInt8": exporters.ops.attention.cached_attention_int8,
    "RmsNorm": lambda x, weight, epsilon: torch.nn.functional.rms_norm(x, x.shape[-1:], weight, epsilon),
    "ShiftMix2": exporters.ops.fusions.shift_mix2,
    "ShiftMix3": exporters.ops.fusions.shift_mix3,
    "GatedWkv": exporters.ops.fusions.gated_wkv,
    "SpikeAdd": exporters.ops.fusions.spike_add,
    "GatedSpikeAdd": exporters.ops.fusions.gated_spike_add,
    "SquaredRelu": exporters.ops.fusions.squared_relu,
    "SparseLinear": exporters.ops.sparse_products.sparse_linear,
    "IntegrateFire": integrate_fire_reference,
    "Plif": exporters.ops.channels.plif_reference,
    "LinearRecurrence": exporters.ops.channels.linear_recurrence_reference,
    "AnchoredAttention": exporters.ops.anchored.anchored_attention,
    "AnchoredAttentionInt8": exporters.ops.anchored.anchored_attention_int8,
    "TernaryLinear": exporters.ops.ternary.ternary_linear,
    "DeltaRule": exporters.ops.channels.delta_rule_reference,
    "TableLinear": exporters.ops.tables.table_linear,
    "TableEmbedding": exporters.ops.tables.table_embedding,
}


def one_node(operator: str, inputs: Arrays, attributes: Mapping[str, Any]) -> onnx.ModelProto:
    """A model of one node with its function body attached, as an exported graph has it."""
    if operator == FUSED:
        return fused_model(attributes[STEPS], inputs)
    signature, body = BY_NAME[operator], body_of(operator, attributes, inputs)
    order = [p.name if p.name in inputs else "" for p in signature.inputs]
    while not order[-1]:
        order.pop()
    outputs = [p.name for p in signature.outputs]
    node = helper.make_node(operator, order, outputs, domain=DOMAIN, **attributes)
    fed = order[: FED[operator]]
    kinds = {n: helper.np_dtype_to_tensor_dtype(a.dtype) for n, a in inputs.items()}
    graph = helper.make_graph(
        [node],
        operator,
        [helper.make_tensor_value_info(n, kinds[n], [None] * inputs[n].ndim) for n in fed],
        [helper.make_tensor_value_info(p.name, KINDS[p.type], None) for p in signature.outputs],
        [numpy_helper.from_array(a, n) for n, a in inputs.items() if n not in fed],
    )
    domains = {"": OPSET, DOMAIN: VERSION, "com.microsoft": 1}
    opsets = [helper.make_opsetid(d, v) for d, v in domains.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[body])


def runtime_reading(library: str | None) -> Reading:
    def read(operator: str, inputs: Arrays, attributes: Mapping[str, float]) -> list[np.ndarray]:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        if library:
            options.register_custom_ops_library(library)
        model = one_node(operator, inputs, attributes).SerializeToString()
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return session.run(None, {i.name: fed_array(i.name, inputs) for i in session.get_inputs()})

    return read


def torch_reading(operator: str, inputs: Arrays, attributes: Mapping[str, float]) -> list[np.ndarray]:
    if operator == FUSED:
        return in_torch(str(attributes[STEPS]), inputs, REFERENCES)
    signature = BY_NAME[operator]
    tensors = [torch.from_numpy(inputs[p.name].copy()) if p.name in inputs else None for p in signature.inputs]
    result = REFERENCES[operator](*tensors, *(attributes[n] for n in (*signature.ints, *signature.floats)))
    return [t.numpy() for t in (result if isinstance(result, tuple) else (result,))]


@pytest.fixture(scope="session")
def driver(emulator: str | None) -> Iterator[Driver]:
    """Our own runtime in a child process; the test is skipped where it was not compiled."""
    driver = Driver(command("slmc-run-driver", emulator))
    yield driver
    driver.close()


def driver_reading(driver: Driver) -> Reading:
    def read(operator: str, inputs: Arrays, attributes: Mapping[str, float]) -> list[np.ndarray]:
        model = one_node(operator, inputs, attributes)
        fed = {i.name: fed_array(i.name, inputs) for i in model.graph.input}
        return driver.run(model.SerializeToString(), fed, [o.name for o in model.graph.output])

    return read


@pytest.fixture
def driver_reading_of() -> Callable[[Driver], Reading]:
    return driver_reading


@pytest.fixture(params=["torch", "function", "kernel", "runtime"])
def reading(request: pytest.FixtureRequest) -> Reading:
    """Runs a test once per reading."""
    if request.param == "torch":
        return torch_reading
    if request.param == "runtime":
        return driver_reading(request.getfixturevalue("driver"))
    return runtime_reading(request.getfixturevalue("native_path") if request.param == "kernel" else None)


@pytest.fixture(scope="session")
def definition() -> Reading:
    """The torch reading alone, for what other readings are compared with."""
    return torch_reading


@pytest.fixture
def kernel_reading(native_path: str) -> Reading:
    """The native kernels alone."""
    return runtime_reading(native_path)


@pytest.fixture
def one_node_model() -> Callable[[str, Arrays, Mapping[str, float]], onnx.ModelProto]:
    return one_node
