"""The same exported graph said with stock operators only, in the ways that may run best on a plain ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import numpy_helper, parser

from exporters.export import GRAPH_NAME, INLINE_BYTES
from exporters.formats.tiles import row_tensors
from exporters.ops.bodies import operator_of
from exporters.ops.functions import OPSET
from exporters.ops.fusion_functions import FUSION_BODIES, LIF_STEPS, WKV_STEPS
from exporters.ops.signatures import DOMAIN, FUSED

NBITS_PRODUCT = """
QLinear <K, N, bits, group, activation_bits> (x, codes, scales, high, zeros) => (y) {
    scales32 = Cast <to = 1> (scales)
    y = com.microsoft.MatMulNBits <K: int = @K, N: int = @N, bits: int = @bits, block_size: int = @group,
        accuracy_level = LEVEL> (x, codes, scales32)
}"""
SHIFT_OF_ONE_TOKEN = """
    one = Constant <value_ints: ints = [1]> ()
    n = LayerNormalization <axis = -1, epsilon: float = @epsilon> (x, weight, bias)
    old = Unsqueeze(before, one)
    before_out = Squeeze(n, one)
    change = Sub(n, old)"""


@dataclass(frozen=True)
class Variant:
    """One way to say the graph. level: MatMulNBits' accuracy_level, 4 being int8 activations; steps: by Scan, so that
    prompts can be read, or without, for one token at a time."""

    level: int
    scan: bool

    @property
    def name(self) -> str:
        return f"stock ONNX Runtime, accuracy_level {self.level}{'' if self.scan else ', one token, no Scan'}"

    @property
    def file(self) -> str:
        return f"stock-{self.level}-{'scan' if self.scan else 'step'}.onnx"


VARIANTS = tuple(Variant(level, scan) for level in (0, 4) for scan in (True, False))


def write_stock(folder: Path, variant: Variant) -> str:
    """Write a variant beside an exported graph, with the same weights row by row; returns its file name.

    Weights must be float, or of 2, 4 or 8 bits in groups, whose rows MatMulNBits reads as they are.
    """
    model = onnx.load(folder / GRAPH_NAME)
    _put_row_by_row(model)
    texts = FUSION_BODIES if variant.scan else {name: _one_token(text) for name, text in FUSION_BODIES.items()}
    for function in model.functions:
        if operator_of(function.name) == "QLinear":
            text = NBITS_PRODUCT.replace("LEVEL", str(variant.level))
        elif function.name in texts:
            text = texts[function.name]
        else:
            continue
        name = function.name
        function.CopyFrom(_function(text))
        function.name = name
    data = f"{variant.file}.data"
    (folder / data).unlink(missing_ok=True)  # onnx would write on behind it
    onnx.save(model, folder / variant.file, save_as_external_data=True, location=data, size_threshold=INLINE_BYTES)
    return variant.file


def _in_tiles(node: onnx.NodeProto, given: Mapping[str, str]) -> set[str]:
    """Packed tensors of a QLinear that lie in tiles, by their names in the graph."""
    tile = any(attribute.name == "tile" and attribute.i for attribute in node.attribute)
    return (
        {given[name] for name in node.input[1:] if name} if tile and operator_of(node.op_type) == "QLinear" else set()
    )


def _put_row_by_row(model: onnx.ModelProto) -> None:
    """Packed tensors of QLinear out of their tiles."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    functions = {function.name: function for function in model.functions}
    tiled: set[str] = set()
    for node in model.graph.node:
        tiled |= _in_tiles(node, {name: name for name in node.input})
        if operator_of(node.op_type) == FUSED:
            body = functions[node.op_type]
            given = dict(zip(body.input, node.input, strict=True))
            tiled |= {name for step in body.node for name in _in_tiles(step, given)}
    for node in (*model.graph.node, *(step for function in model.functions for step in function.node)):
        for attribute in node.attribute:
            if operator_of(node.op_type) == "QLinear" and attribute.name == "tile":
                attribute.i = 0
    for name in tiled:
        rows = row_tensors({name: numpy_helper.to_array(tensors[name])})[name]
        tensors[name].CopyFrom(numpy_helper.from_array(rows, name))


def _function(text: str) -> onnx.FunctionProto:
    header = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}, "com.microsoft" : 1]>'
    return parser.parse_function(header + text)


def _one_token(text: str) -> str:
    """A body for T = 1: the Scan's steps once, in the open."""
    text = text.replace(LIF_STEPS, _unrolled(LIF_STEPS)).replace(WKV_STEPS, _unrolled(WKV_STEPS))
    return re.sub(r"\n    zero = Constant.*?change = Sub\(n, old\)", SHIFT_OF_ONE_TOKEN, text, flags=re.DOTALL)


def _unrolled(steps: str) -> str:
    """Text of a Scan over axis 1 as the same nodes for a single step."""
    parts = re.fullmatch(
        r"(?P<before>.*)\n    (?P<results>[\w, ]+) = Scan <.*body = step \((?P<inputs>.*?)\)\s*=> \((?P<outputs>.*?)\) "
        r"\{(?P<nodes>.*)\}> \((?P<arguments>.*)\)",
        steps,
        flags=re.DOTALL,
    )
    assert parts is not None
    inputs, outputs = (re.findall(r"\](?: )(\w+)", parts[kind]) for kind in ("inputs", "outputs"))
    arguments, results = (parts[kind].split(", ") for kind in ("arguments", "results"))
    states = len(outputs) - 1
    lines = ["step_axis = Constant <value_ints: ints = [1]> ()"]
    for i, (name, argument) in enumerate(zip(inputs, arguments, strict=True)):
        lines.append(f"{name} = Identity({argument})" if i < states else f"{name} = Squeeze({argument}, step_axis)")
    lines.append(parts["nodes"])
    for i, (name, result) in enumerate(zip(outputs, results, strict=True)):
        lines.append(f"{result} = Identity({name})" if i < states else f"{result} = Unsqueeze({name}, step_axis)")
    return parts["before"] + "\n    " + "\n    ".join(lines)
