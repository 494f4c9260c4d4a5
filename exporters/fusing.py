"""Nodes of an exported graph become few: runs of products, norms and what stands between them turn into Fused nodes.

A run begins at a norm and ends before the next one, so that a decoder's layer is a norm with the products that read it,
the attention, and the products with the sums behind it. Nothing depends on a family's names.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import onnx_ir
from onnx_ir import DataType, Node, Value

from exporters.ops.bodies import operator_of
from exporters.ops.signatures import DOMAIN, FUSED
from exporters.ops.steps import FUSIBLE, NORMS, STANDARD, STEPS, Number, Step, Steps


def fuse(model: onnx_ir.Model) -> list[tuple[Node, Steps]]:
    """Put Fused nodes in the place of runs of two nodes or more; returns them with what they do.

    Nodes of ours must still have their operators' names. The graph is sorted anew: what is no step comes as early as it
    can, so that runs are long.
    """
    graph = model.graph
    _shape(graph)
    logits = graph.outputs[0].producer()
    fusible = {node for node in graph if node is not logits and _fusible(node)}
    made = [_replace(graph, run) for run in _runs(list(graph), fusible) if len(run) > 1]
    graph.sort()
    return made


# --- which nodes -----------------------------------------------------------------------------------------------------


def _fusible(node: Node) -> bool:
    if node.domain == DOMAIN:
        return node.op_type in FUSIBLE
    return node.domain == "" and node.op_type in STANDARD and _simple(node)


def _shape(graph: onnx_ir.Graph) -> None:
    """Give results of steps the shape that torch's exporter leaves out where it makes several nodes of one."""
    for node in graph:
        if node.domain == "" and node.op_type in STANDARD and (y := node.outputs[0]).shape is None:
            largest = max((x for x in node.inputs if x is not None and x.shape is not None), key=_rank, default=None)
            if largest is not None:
                y.shape, y.type = largest.shape, largest.type


def _rank(value: Value) -> tuple[int, bool]:
    return len(value.shape or ()), not value.is_initializer()


def _simple(node: Node) -> bool:
    """Whether every input has the shape of the output, float32, or is a constant of one entry or of its last axis."""
    y, known = node.outputs[0], STANDARD[node.op_type]
    if len(node.inputs) != known.inputs or not set(known.attributes) <= set(node.attributes):
        return False
    if y.shape is None or y.dtype != DataType.FLOAT or (node.op_type == "LayerNormalization" and not _over_last(node)):
        return False
    return all(x is not None and _fits(x, y) for x in node.inputs) and any(x.shape == y.shape for x in node.inputs if x)


def _over_last(node: Node) -> bool:
    axis = node.attributes.get("axis")
    return axis is None or axis.as_int() == -1


def _fits(x: Value, y: Value) -> bool:
    if x.dtype != DataType.FLOAT or x.shape is None or y.shape is None:
        return False
    if not x.is_initializer():
        return x.shape == y.shape
    entries, last = x.const_value.size if x.const_value is not None else 0, y.shape[-1] if len(y.shape) else 1
    return entries == 1 or (entries == last and (x.shape[-1] == last))


# --- their order -----------------------------------------------------------------------------------------------------


def _runs(nodes: Sequence[Node], fusible: set[Node]) -> list[list[Node]]:
    """Steps that can be done one behind the other, with nothing in between: a run goes on as long as it can.

    Nodes that are no steps come before the next run if they are ready by then. Within a run a norm stands first only.
    """
    waits = {node: len(set(node.predecessors())) for node in nodes}
    ready = {node for node in nodes if not waits[node]}
    place = {node: i for i, node in enumerate(nodes)}
    runs: list[list[Node]] = []

    def take(node: Node) -> None:
        ready.remove(node)
        for successor in set(node.successors()):
            waits[successor] -= 1
            if not waits[successor]:
                ready.add(successor)

    while ready:
        while plain := ready - fusible:
            take(min(plain, key=place.__getitem__))
        run: list[Node] = []
        while some := {node for node in ready & fusible if not run or node.op_type not in NORMS}:
            run.append(min(some, key=place.__getitem__))
            take(run[-1])
        if run:
            runs.append(_in_levels(run))
    return runs


def _in_levels(run: Sequence[Node]) -> list[Node]:
    """What can be done side by side stands side by side, so that products share inputs and threads."""
    level: dict[Node, int] = {}
    for node in run:
        level[node] = 1 + max((level[p] for p in node.predecessors() if p in level), default=0)
    return sorted(run, key=lambda node: level[node])


# --- the node --------------------------------------------------------------------------------------------------------


def _replace(graph: onnx_ir.Graph, run: Sequence[Node]) -> tuple[Node, Steps]:
    inside = {value for node in run for value in node.outputs}
    read = dict.fromkeys(x for node in run for x in node.inputs if x is not None and x not in inside)
    given = [value for node in run for value in node.outputs if _leaves(graph, value, run)]
    names = {value: f"a{i}" for i, value in enumerate((*read, *(v for node in run for v in node.outputs)))}
    what = Steps(
        tuple(names[value] for value in read),
        tuple(_step(node, names) for node in run),
        tuple(names[value] for value in given),
    )
    node = Node(DOMAIN, FUSED, list(read), [onnx_ir.AttrString(STEPS, what.text())], outputs=_copies(given))
    node.name = _place(run)
    graph.insert_before(run[0], node)
    for old, new in zip(given, node.outputs, strict=True):
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.name, old.name = old.name, None
    graph.remove(run, safe=True)
    return node, what


def _leaves(graph: onnx_ir.Graph, value: Value, run: Sequence[Node]) -> bool:
    return value.is_graph_output() or any(node not in run for node in value.consumers())


def _copies(values: Iterable[Value]) -> list[Value]:
    return [Value(shape=value.shape, type=value.type) for value in values]


def _step(node: Node, names: dict[Value, str]) -> Step:
    inputs = tuple("" if x is None else names[x] for x in node.inputs)
    attributes = {name: _plain(attribute) for name, attribute in node.attributes.items()}
    if node.op_type in STANDARD and node.domain == "":
        attributes = {name: attributes[name] for name in STANDARD[node.op_type].attributes}
    return Step(operator_of(node.op_type), inputs, tuple(names[y] for y in node.outputs), attributes)


def _plain(attribute: onnx_ir.Attr) -> Number:
    value = attribute.value
    assert isinstance(value, (int, float, str))
    return value


def _place(run: Sequence[Node]) -> str:
    """The module that all matrices of a run lie in."""
    packed = (node.inputs[1] for node in run if node.op_type.endswith("Linear"))
    paths = [x.name.split(".")[:-1] for x in packed if x is not None and x.name]
    shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return ".".join(parts[0] for parts in shared)
