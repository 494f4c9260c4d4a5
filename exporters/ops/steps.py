"""Several operators as one node, Fused: what it does step by step, as text that the kernels read and as an ONNX body.

    RmsNorm i0 i1 epsilon=0x1.4f8b58p-17
    QLinear v0 i2 i3 K=576 N=192 bits=4 group=64 activation_bits=8 tile=16
    Add v1 i4
    out v2

Values are inputs of the node, i0, i1, ..., or what steps make, v0, v1, ... in their order; '-' is an input left out.
Floats are written as C writes hexadecimal ones, which loses nothing. The last line names the node's outputs. All that
is made is float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onnx import FunctionProto, NodeProto, helper

from exporters.artifact.errors import SlmcError
from exporters.ops.bodies import Bodies
from exporters.ops.body_table import body_of, given_inputs
from exporters.ops.functions import OPSET
from exporters.ops.signatures import DOMAIN, FUSED, SIGNATURES, VERSION

STEPS = "steps"
"""The attribute of a Fused node that holds the text."""

Number = int | float | str
_OURS = {signature.name: signature for signature in SIGNATURES}


@dataclass(frozen=True)
class Standard:
    """What a node of ONNX's own has if it may be a step: so many inputs, and these attributes."""

    inputs: int
    attributes: tuple[str, ...] = ()


STANDARD: Mapping[str, Standard] = {
    "Add": Standard(2),
    "Mul": Standard(2),
    "Sigmoid": Standard(1),
    "Relu": Standard(1),
    "Gelu": Standard(1, ("approximate",)),
    "LayerNormalization": Standard(3, ("epsilon",)),
}
"""Operators of ONNX's own that may be steps; norms are over the last axis."""

FUSIBLE = frozenset(
    {
        "QLinear", "TableLinear", "SparseLinear", "EventLinear", "HalfLinear", "RmsNorm", "ShiftMix2", "ShiftMix3",
        "GatedWkv", "SpikeAdd", "GatedSpikeAdd", "SquaredRelu",
    }
)  # fmt: skip
"""Operators of ours that may be steps."""

NORMS = frozenset({"RmsNorm", "LayerNormalization", "ShiftMix2", "ShiftMix3"})
"""Steps that stand first in a fused node: what follows them up to the next one goes along (exporters.fusing)."""


def follows(operator: str) -> bool:
    """Whether nodes of an operator become steps behind others as a rule."""
    return (operator in FUSIBLE or operator in STANDARD) and operator not in NORMS


@dataclass(frozen=True)
class Step:
    """One operator; inputs: names of values, '' where one is left out; outputs: names of what it makes."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Number]


@dataclass(frozen=True)
class Steps:
    """What one Fused node does. inputs, outputs: names of the values that go in and come out, in order."""

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]

    def text(self) -> str:
        """As the node's attribute says it."""
        names = {name: f"i{i}" for i, name in enumerate(self.inputs)}
        made = [name for step in self.steps for name in step.outputs]
        names |= {name: f"v{i}" for i, name in enumerate(made)}
        lines = [" ".join((step.operator, *_words(step, names))) for step in self.steps]
        return "\n".join((*lines, " ".join(("out", *(names[name] for name in self.outputs)))))

    def function(self, bodies: Bodies) -> FunctionProto:
        """The body of the node; bodies: gets those of its steps, and gives them their names."""
        nodes = [_node(step, bodies) for step in self.steps]
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
        return helper.make_function(DOMAIN, FUSED, self.inputs, self.outputs, nodes, opsets, [STEPS])


def _words(step: Step, names: Mapping[str, str]) -> list[str]:
    values = [names[name] if name else "-" for name in step.inputs]
    return [*values, *(f"{name}={_written(value)}" for name, value in step.attributes.items())]


def _written(value: Number) -> str:
    return value.hex() if isinstance(value, float) else str(value)


def _node(step: Step, bodies: Bodies) -> NodeProto:
    name, domain = step.operator, ""
    if name not in STANDARD:
        name, domain = bodies.name(body_of(name, step.attributes, given_inputs(name, step.inputs))), DOMAIN
    node = helper.make_node(name, step.inputs, step.outputs, domain=domain)
    node.attribute.extend(helper.make_attribute(key, value) for key, value in step.attributes.items())
    return node


def read_steps(text: str, inputs: int) -> Steps:
    """Steps from the text of a node with so many inputs; values have the names that the text gives them.

    Raises:
        SlmcError: no such text.
    """
    *lines, last = text.split("\n")
    steps: list[Step] = []
    known = {f"i{i}" for i in range(inputs)}
    for line in lines:
        operator, *words = line.split(" ")
        values = tuple("" if word == "-" else word for word in words if "=" not in word)
        pairs = (word.split("=", 1) for word in words if "=" in word)
        first = sum(len(step.outputs) for step in steps)
        made = tuple(f"v{first + i}" for i in range(_made_by(operator)))
        _check(line, {name for name in values if name} <= known)
        steps.append(Step(operator, values, made, {name: _read(value) for name, value in pairs}))
        known.update(made)
    said, *outputs = last.split(" ")
    _check(last, said == "out" and set(outputs) <= known)
    return Steps(tuple(f"i{i}" for i in range(inputs)), tuple(steps), tuple(outputs))


def _made_by(operator: str) -> int:
    _check(operator, operator in STANDARD or operator in FUSIBLE)
    return 1 if operator in STANDARD else len(_OURS[operator].outputs)


def _read(text: str) -> Number:
    readers: tuple[Callable[[str], Number], ...] = (int, float.fromhex, str)
    for reader in readers[1:] if "x" in text else readers[::2]:
        try:
            return reader(text)
        except ValueError:
            continue
    return text


def _check(line: str, holds: bool) -> None:
    if not holds:
        raise SlmcError(f"model.onnx: a fused node has an unknown step, {line[:80]!r}; copy the artifact again")
