"""Fused nodes as models of one node, and step by step in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from exporters.ops.bodies import Bodies
from exporters.ops.functions import OPSET
from exporters.ops.signatures import DOMAIN, FUSED, SIGNATURES, VERSION
from exporters.ops.steps import STEPS, Step, Steps, read_steps

Arrays = Mapping[str, np.ndarray]
_SIGNATURES = {signature.name: signature for signature in SIGNATURES}

STANDARD_IN_TORCH: dict[str, Callable[..., Tensor]] = {
    "Add": torch.add,
    "Mul": torch.mul,
    "Sigmoid": torch.sigmoid,
    "Relu": torch.relu,
    "Gelu": lambda x, approximate: functional.gelu(x, approximate=approximate),
    "LayerNormalization": lambda x, w, b, epsilon: functional.layer_norm(x, x.shape[-1:], w, b, epsilon),
}


def named(text: str, inputs: Arrays) -> Steps:
    """The steps of a text, whose i0, i1, ... are these inputs in order."""
    return read_steps(text, len(inputs))


def model_of(
    nodes: list[onnx.NodeProto], functions: list[onnx.FunctionProto], inputs: Arrays, outputs: tuple[str, ...]
) -> onnx.ModelProto:
    """A model of nodes over i0, i1, ...; inputs whose names begin with x are fed, the others are constants."""
    numbered = {f"i{i}": (name, array) for i, (name, array) in enumerate(inputs.items())}
    fed = {i: array for i, (name, array) in numbered.items() if name.startswith("x")}
    graph = helper.make_graph(
        nodes,
        "fused",
        [
            helper.make_tensor_value_info(i, helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim)
            for i, a in fed.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, i) for i, (_, array) in numbered.items() if i not in fed],
    )
    domains = {"": OPSET, DOMAIN: VERSION, "com.microsoft": 1}
    opsets = [helper.make_opsetid(d, v) for d, v in domains.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)


def fed_array(name: str, inputs: Arrays) -> np.ndarray:
    """What goes into the input of a model: the array of that name, or the one that i0, i1, ... stands for."""
    return inputs[name] if name in inputs else list(inputs.values())[int(name[1:])]


def fused_model(text: str, inputs: Arrays) -> onnx.ModelProto:
    """One Fused node with its body, and those of its steps, as an exported graph has it."""
    what, bodies = named(text, inputs), Bodies()
    function = what.function(bodies)
    bodies.name(function)
    node = helper.make_node(FUSED, what.inputs, what.outputs, domain=DOMAIN, **{STEPS: text})
    return model_of([node], bodies.functions, inputs, what.outputs)


def plain_model(text: str, inputs: Arrays) -> onnx.ModelProto:
    """The same as a node for every step."""
    what, bodies = named(text, inputs), Bodies()
    return model_of(list(what.function(bodies).node), bodies.functions, inputs, what.outputs)


def in_torch(text: str, inputs: Arrays, references: Mapping[str, Callable[..., Any]]) -> list[np.ndarray]:
    """Outputs of the steps, one after another; references: of our operators."""
    what = named(text, inputs)
    values = {f"i{i}": torch.from_numpy(array.copy()) for i, array in enumerate(inputs.values())}
    for step in what.steps:
        made = _made(step, [values.get(name) for name in step.inputs], references)
        values |= zip(step.outputs, made if isinstance(made, tuple) else (made,), strict=True)
    return [values[name].numpy() for name in what.outputs]


def _made(step: Step, inputs: list[Tensor | None], references: Mapping[str, Callable[..., Any]]) -> Any:
    if step.operator in STANDARD_IN_TORCH:
        return STANDARD_IN_TORCH[step.operator](*inputs, **step.attributes)
    signature = _SIGNATURES[step.operator]
    inputs += [None] * (len(signature.inputs) - len(inputs))
    return references[step.operator](*inputs, *(step.attributes[n] for n in (*signature.ints, *signature.floats)))
