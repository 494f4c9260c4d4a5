"""What an ONNX graph computes for one token, node by node, as plain values that a cost model can price."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import GraphProto, NodeProto, TensorProto

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import LOGITS_FROM
from exporters.formats.catalog import format_of_node
from exporters.ops.bodies import operator_of
from exporters.ops.signatures import DOMAIN, FUSED
from exporters.ops.steps import STEPS, read_steps

_BITS: dict[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.FLOAT16: 16,
    TensorProto.UINT8: 8,
    TensorProto.INT8: 8,
    TensorProto.INT64: 64,
}
ATTENDS = ("CachedAttention", "AnchoredAttention")
"""Operators whose names begin with one of these read a cache, and cost by the width of what they give."""
_EMBEDDINGS = ("Gather", "QEmbedding", "TableEmbedding", "SignEmbedding")
"""Operators that read one row of their first large initializer and not all of it."""


@dataclass(frozen=True)
class GraphNode:
    """One node, or a step of a fused one: rows x cols is outputs x inputs of a matrix, or width x 1 of anything else.

    format: of a matrix, as formats.catalog spells it; '' without one. nbytes: constant bytes that one token reads.
    activation_bits: the attribute of that name, 0 if the operator has none. layer: the path of a matrix in the model.
    behind: whether it is a step of a fused node and not its first, so that it costs no node of its own.
    """

    operator: str
    format: str
    rows: int
    cols: int
    nbytes: int
    activation_bits: int = 0
    layer: str = ""
    behind: bool = False

    @property
    def is_matrix(self) -> bool:
        return self.cols > 1

    @property
    def weights(self) -> int:
        """Multiply-accumulates of a matrix for one token; elements of anything else."""
        return self.rows * self.cols


@dataclass(frozen=True)
class Workload:
    """All that one token asks for; states: how many recurrent states go in and come out."""

    nodes: tuple[GraphNode, ...]
    states: int
    state_bytes: int

    @property
    def weight_bytes(self) -> int:
        """Constant bytes that one token reads."""
        return sum(node.nbytes for node in self.nodes)


def read_workload(graph: Path) -> Workload:
    """The nodes of model.onnx for one token; its data file is not read.

    Raises:
        SlmcError: no ONNX graph.
    """
    try:
        model = onnx.load(str(graph), load_external_data=False)
    except Exception as error:  # protobuf's errors share no base
        raise SlmcError(f"{graph}: no ONNX model ({error}); copy or build the artifact again") from error
    return workload(model.graph)


def workload(graph: GraphProto) -> Workload:
    """The same for a graph in memory: its shapes must have been inferred, as torch's exporter does."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    widths = {value.name: _static_elements(value) for value in (*graph.value_info, *graph.output, *graph.input)}
    states = [value for value in graph.input if value.name not in (*constants, LOGITS_FROM)][1:]
    nodes = tuple(priced for node in graph.node for priced in _nodes(node, constants, widths))
    return Workload(nodes, len(states), sum(_state_bytes(value) for value in states))


def _nodes(node: NodeProto, constants: Mapping[str, TensorProto], widths: Mapping[str, int]) -> Iterator[GraphNode]:
    """What a node is priced as: itself, or the steps of a fused one."""
    operator = operator_of(node.op_type) if node.domain == DOMAIN else node.op_type
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if operator == FUSED:
        yield from _steps(attributes[STEPS].decode(), node.input, constants, widths)
        return
    made = node.output[:1] if operator.startswith(ATTENDS) else node.output  # its caches are not what it computes
    width = max((widths.get(name, 1) for name in made), default=1)
    yield _node(operator, attributes, [constants.get(name) for name in node.input], width)


def _steps(
    text: str, inputs: Sequence[str], constants: Mapping[str, TensorProto], widths: Mapping[str, int]
) -> Iterator[GraphNode]:
    """Steps by their text; what only they make is as wide as a matrix has rows, or as what they read."""
    what = read_steps(text, len(inputs))
    given = dict(zip(what.inputs, inputs, strict=True))
    wide = {name: widths.get(given[name], 1) for name in given if given[name] not in constants}
    for number, step in enumerate(what.steps):
        tensors = [constants.get(given.get(name, "")) for name in step.inputs]
        width = max((wide[name] for name in step.inputs if name in wide), default=1)
        priced = _node(step.operator, step.attributes, tensors, width)
        wide |= dict.fromkeys(step.outputs, priced.rows)
        yield dataclasses.replace(priced, behind=number > 0)


def _node(
    operator: str, attributes: Mapping[str, object], inputs: Sequence[TensorProto | None], width: int
) -> GraphNode:
    """inputs: the constants among them, None for others."""
    tensors = [tensor for tensor in inputs if tensor is not None]
    nbytes = sum(_nbytes(tensor) for tensor in tensors)
    matrix = _matrix(operator, tensors, attributes)
    if operator in _EMBEDDINGS and tensors and len(tensors[0].dims) > 1:
        return GraphNode(operator, "", width, 1, nbytes // max(tensors[0].dims[0], 1))
    if matrix is None:
        return GraphNode(operator, "", width, 1, nbytes)
    rows, cols = matrix
    zeros = len(inputs) > 4 and inputs[4] is not None
    layer = next((tensor.name.rpartition(".")[0] for tensor in tensors if len(tensor.dims) > 1), "")
    bits = attributes.get("activation_bits", 0)
    assert isinstance(bits, int)
    return GraphNode(operator, _format(operator, attributes, cols, zeros), rows, cols, nbytes, bits, layer)


def _matrix(operator: str, tensors: Sequence[TensorProto], attributes: Mapping[str, object]) -> tuple[int, int] | None:
    """Outputs and inputs of the matrix that the node multiplies with, if there is one."""
    if isinstance(attributes.get("N"), int) and isinstance(attributes.get("K"), int):
        return int(str(attributes["N"])), int(str(attributes["K"]))
    flat = [tensor for tensor in tensors if len(tensor.dims) == 2]
    if operator == "MatMul" and flat:
        return flat[0].dims[1], flat[0].dims[0]
    return (flat[0].dims[0], flat[0].dims[1]) if operator.endswith("Linear") and flat else None


def _format(operator: str, attributes: Mapping[str, object], cols: int, zeros: bool) -> str:
    return format_of_node(operator, {n: v for n, v in attributes.items() if isinstance(v, int)}, cols, zeros)


def _nbytes(tensor: TensorProto) -> int:
    return int(math.prod(tensor.dims)) * _BITS.get(tensor.data_type, 32) // 8


def _state_bytes(value: onnx.ValueInfoProto) -> int:
    return _static_elements(value) * _BITS.get(value.type.tensor_type.elem_type, 32) // 8


def _static_elements(value: onnx.ValueInfoProto) -> int:
    """Elements for one token: the product of all dimensions that are numbers."""
    return math.prod(d.dim_value for d in value.type.tensor_type.shape.dim if d.dim_value > 0)
