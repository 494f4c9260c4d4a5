"""Chains as files: a graph, one block of its data file, and what its nodes are priced as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from exporters.artifact.blocks import BlockTensor
from exporters.formats.parts import Array
from exporters.ops.bodies import Bodies
from exporters.ops.body_table import body_of, given_inputs
from exporters.ops.functions import OPSET
from exporters.ops.signatures import DOMAIN, FLOAT, HALF, INT8

PAGE_BYTES = 4096
IR_VERSION = 10

STATE, NEXT = "state.", "next."
"""Names of states begin so, as they go in and as they come out."""


@dataclass(frozen=True)
class Microbenchmark:
    """A model that was written: input x float32 [1, 1, width], and for what its nodes are priced.

    priced: operator, rows, cols of every kind of node in it, each of which occurs `count` times in the graph.
    working_set_bytes: constants that one run reads. activation_bits: of the products, 0 where there is no choice.
    block, tensors, repeats: the data file, which does not exist yet (`exporters.artifact.blocks.expand` writes it).
    """

    path: Path
    width: int
    priced: tuple[tuple[str, int, int], ...]
    format: str
    count: int
    working_set_bytes: int
    activation_bits: int = 0
    tensors: tuple[BlockTensor, ...] = ()
    repeats: int = 1

    @property
    def block(self) -> Path:
        return self.path.with_suffix(".block")

    @property
    def data(self) -> Path:
        """Where the graph expects its data file."""
        return self.path.with_suffix(".data")


@dataclass(frozen=True)
class BenchmarkState:
    """A state of a benchmark, which a call changes where it lies; type: as ONNX Runtime spells it."""

    input: str
    output: str
    shape: tuple[int, ...]
    type: str


class BenchmarkBlock:
    """Constants of a benchmark, the larger ones page by page in a block of its data file.

    Args:
        constants: by name.
        different: how many of each there are, NAME_0 to NAME_{different - 1}, all of one distribution: each has its
            rows in another order, or its columns where moved_axis is 1; vectors stay as they are, for one may be a
            table. 0: one of each, by its own name.
    """

    def __init__(self, constants: dict[str, Array], different: int, *, moved_axis: int) -> None:
        self._constants, self._different, self._axis = constants, different, moved_axis
        self._offsets: dict[str, int] = {}
        self.nbytes = 0
        for name, array in constants.items():
            if array.nbytes >= PAGE_BYTES:
                self._offsets[name] = self.nbytes
                self.nbytes += -(-array.nbytes // PAGE_BYTES) * PAGE_BYTES

    @property
    def rotated(self) -> tuple[BlockTensor, ...]:
        return tuple(self._rotation(self._constants[name], offset) for name, offset in self._offsets.items())

    def _rotation(self, array: Array, offset: int) -> BlockTensor:
        row = array.nbytes // array.shape[0]
        segment, step = (array.nbytes, row) if self._axis == 0 else (row, array.itemsize)
        return BlockTensor(offset, array.nbytes, segment, step)

    def tensors(self, data: str) -> list[TensorProto]:
        """All constants of the graph, those of the block by their place in the data file of that name."""
        tensors = []
        for number in range(max(self._different, 1)):
            for name, array in self._constants.items():
                own = f"{name}_{number}" if self._different else name
                if name in self._offsets:
                    tensors.append(_external(own, array, data, number * self.nbytes + self._offsets[name]))
                else:
                    moved = np.roll(array, number, self._axis) if number and array.ndim > 1 else array
                    tensors.append(numpy_helper.from_array(moved, own))
        return tensors

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            for name, offset in self._offsets.items():
                file.seek(offset)
                file.write(np.ascontiguousarray(self._constants[name]).tobytes())
            file.truncate(self.nbytes)


_ELEMENTS = {FLOAT: TensorProto.FLOAT, HALF: TensorProto.FLOAT16, INT8: TensorProto.INT8}


def _external(name: str, array: Array, data: str, offset: int) -> TensorProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = TensorProto(name=name, dims=array.shape, data_type=kind, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", data), ("offset", str(offset)), ("length", str(array.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def write_microbenchmark(
    nodes: Sequence[NodeProto], block: BenchmarkBlock, benchmark: Microbenchmark, states: Sequence[BenchmarkState] = ()
) -> Microbenchmark:  # fmt: skip
    """Write the model, and the block that its data file is made of."""
    block.write(benchmark.block)
    last = nodes[-1].output[0]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, benchmark.width]) for name in ("x0", last)]
    imports = [helper.make_opsetid(d, v) for d, v in (("", OPSET), (DOMAIN, 1), ("com.microsoft", 1))]
    functions = _functions(nodes)
    into, out = (
        [helper.make_tensor_value_info(name, _ELEMENTS[state.type], state.shape) for name, state in side]
        for side in ([(s.input, s) for s in states], [(s.output, s) for s in states])
    )
    tensors = block.tensors(benchmark.data.name)
    model = helper.make_model(
        helper.make_graph(list(nodes), "benchmark", [*ends[:1], *into], [*ends[1:], *out], tensors),
        opset_imports=imports, ir_version=IR_VERSION, functions=functions,
    )  # fmt: skip
    benchmark.path.write_bytes(model.SerializeToString())
    return benchmark


def _functions(nodes: Sequence[NodeProto]) -> list[FunctionProto]:
    """Bodies of our operators, for a runtime without the library; renames the nodes after them."""
    bodies = Bodies()
    for node in nodes:
        if node.domain == DOMAIN:
            values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            node.op_type = bodies.name(body_of(node.op_type, values, given_inputs(node.op_type, node.input)))
    return bodies.functions


def states_model(states: int, width: int) -> bytes:
    """tokens int64 [1, T] to logits [1, T, width], gathered from a table; beside it t0 = Relu(s0) [1, width] ..."""
    table = numpy_helper.from_array(np.ones((width, width), np.float32), "table")
    nodes = [helper.make_node("Gather", ["table", "tokens"], ["logits"])]
    nodes += [helper.make_node("Relu", [f"s{i}"], [f"t{i}"]) for i in range(states)]
    inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "T"])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "T", width])]
    for side, letter in ((inputs, "s"), (outputs, "t")):
        side += [helper.make_tensor_value_info(f"{letter}{i}", TensorProto.FLOAT, [1, width]) for i in range(states)]
    graph = helper.make_graph(nodes, "states", inputs, outputs, [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    result: bytes = model.SerializeToString()
    return result
