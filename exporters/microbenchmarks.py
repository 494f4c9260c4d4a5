"""Chains of one kind of node, as small ONNX models: what a cost table is measured on."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import NodeProto, helper

from exporters.artifact.errors import SlmcError
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from exporters.formats.parts import Array, Node
from exporters.microbenchmark_files import (
    NEXT,
    STATE,
    BenchmarkBlock,
    BenchmarkState,
    Microbenchmark,
    write_microbenchmark,
)
from exporters.ops.signatures import (
    CACHED_ATTENTION,
    CACHED_ATTENTION_HALF,
    CACHED_ATTENTION_INT8,
    DOMAIN,
    GATED_SPIKE_ADD,
    GATED_WKV,
    INTEGRATE_FIRE,
    LIF,
    RMS_NORM,
    SHIFT_MIX2,
    SHIFT_MIX3,
    SIGNATURES,
    SPIKE_ADD,
    WKV,
)

ATTENTION: Final = (CACHED_ATTENTION, CACHED_ATTENTION_HALF, CACHED_ATTENTION_INT8)


def matrix_operator(format_name: str) -> str:
    """The operator that multiplies with a matrix in this format.

    Raises:
        SlmcError: none does.
    """
    operator = format_named(format_name).operator
    if not operator:
        raise SlmcError(f"format {format_name}: no operator multiplies with it")
    return operator


def activation_widths(format_name: str) -> tuple[int, ...]:
    """The activation_bits that recipes give the operator of a format; 0 where it has no such attribute."""
    matrix_operator(format_name)
    return (32, 8) if format_named(format_name).input_group(1) else (0,)


def write_matrix_benchmark(
    path: Path, format_name: str, rows: int, cols: int, working_set_bytes: int, activation_bits: int = 0
) -> Microbenchmark:
    """x [1, 1, cols] through matrices [rows, cols] and, unless square, back through [cols, rows], in turn.

    There are as many different ones as the working set holds, at least one pair, and at least 16 nodes in all. Their
    values keep the size of x. Weights lie in a mapped file, as an artifact's do; written is one block of it.

    Raises:
        SlmcError: the format serves no matrix product.
    """
    operator, fmt = matrix_operator(format_name), format_named(format_name)
    shapes = [(rows, cols)] if rows == cols else [(rows, cols), (cols, rows)]
    each = sum(bytes_for(fmt, *shape) for shape in shapes)
    different = max(1, working_set_bytes // each)
    count = math.ceil(max(different, 16 // len(shapes)) / different) * different
    first = [_random_node(format_name, *shape) for shape in shapes]
    constants = {f"{name}_{j}": tensor for j, node in enumerate(first) for name, tensor in node.packed.items()}
    nodes: list[NodeProto] = []
    for i in range(count):
        for j, node in enumerate(first):
            names = [f"{name}_{j}_{i % different}" if name in node.packed else "" for name in node.inputs]
            k = i * len(shapes) + j
            nodes.append(_matrix_node(node, f"x{k}", names, f"x{k + 1}", activation_bits))
    priced = tuple((operator, *shape) for shape in shapes)
    block = BenchmarkBlock(constants, different, moved_axis=1 if operator == "MatMul" else 0)
    benchmark = Microbenchmark(
        path=path, width=cols, priced=priced, format=format_name, count=count, working_set_bytes=different * each,
        activation_bits=activation_bits, tensors=block.rotated, repeats=different,
    )  # fmt: skip
    return write_microbenchmark(nodes, block, benchmark)


@functools.lru_cache(maxsize=64)
def _random_node(format_name: str, rows: int, cols: int) -> Node:
    """Weights that keep the size of x; kept, because a probe asks for the same ones again and again."""
    weight = np.random.default_rng(rows).standard_normal((rows, cols), np.float32) / np.float32(math.sqrt(cols))
    fmt = format_named(format_name)
    (term,) = fmt.product(fmt.encode(weight)).terms
    (node,) = term.nodes
    return node


def _matrix_node(node: Node, x: str, packed: list[str], y: str, activation_bits: int) -> NodeProto:
    while not packed[-1]:
        packed.pop()
    ours = next((s for s in SIGNATURES if s.name == node.operator), None)
    if ours is None:
        return helper.make_node(node.operator, [x, *packed], [y])
    attributes = {**node.attributes, "activation_bits": activation_bits}
    ints: dict[str, Any] = {name: attributes[name] for name in ours.ints}
    return helper.make_node(node.operator, [x, *packed], [y], domain=DOMAIN, **ints)


def _unary(operator: str) -> Callable[[str, str, int], list[NodeProto]]:
    return lambda x, y, i: [helper.make_node(operator, [x], [y])]


def _binary(operator: str, *constants: str) -> Callable[[str, str, int], list[NodeProto]]:
    return lambda x, y, i: [helper.make_node(operator, [x, *constants], [y])]


def _rms_norm(x: str, y: str, i: int) -> list[NodeProto]:
    return [helper.make_node(RMS_NORM.name, [x, "ones"], [y], domain=DOMAIN, epsilon=1e-5)]


def _shift(x: str, y: str, i: int) -> list[NodeProto]:
    return [
        helper.make_node("Unsqueeze", ["state", "at1"], [f"u{i}"]),
        helper.make_node("Concat", [f"u{i}", x], [f"c{i}"], axis=1),
        helper.make_node("Slice", [f"c{i}", "at1", "end", "at1"], [y]),
    ]


def _last(x: str, y: str, i: int) -> list[NodeProto]:
    return [
        helper.make_node("Gather", [x, "last"], [f"g{i}"], axis=1),
        helper.make_node("Unsqueeze", [f"g{i}", "at1"], [y]),
    ]


def _neuron(operator: str, inputs: list[str], outputs: list[str]) -> list[NodeProto]:
    return [helper.make_node(operator, inputs, outputs, domain=DOMAIN, tau=2.0, threshold=1.0, reset=0.0)]


def _lif(x: str, y: str, i: int) -> list[NodeProto]:
    return _neuron(LIF.name, [x, "state"], [y, f"m{i}"])


def _wkv(x: str, y: str, i: int) -> list[NodeProto]:
    states = [f"a{i}", f"b{i}", f"e{i}"]
    inputs = ["decay", "vector", x, x, "state", "state", "state"]
    return [helper.make_node(WKV.name, inputs, [y, *states], domain=DOMAIN)]


def _shift_mix(mixes: int) -> Callable[[str, str, int], list[NodeProto]]:
    name = {2: SHIFT_MIX2.name, 3: SHIFT_MIX3.name}[mixes]

    def link(x: str, y: str, i: int) -> list[NodeProto]:
        outputs = [y, *(f"y{j}_{i}" for j in range(1, mixes)), f"n{i}"]
        inputs = [x, "state", "ones", "vector", *["mix"] * mixes]
        return [helper.make_node(name, inputs, outputs, domain=DOMAIN, epsilon=1e-5)]

    return link


def _gated_wkv(x: str, y: str, i: int) -> list[NodeProto]:
    states = [f"a{i}", f"b{i}", f"e{i}"]
    inputs = ["decay", "vector", x, x, x, "state", "state", "state"]
    return [helper.make_node(GATED_WKV.name, inputs, [y, *states], domain=DOMAIN)]


def _spike_add(x: str, y: str, i: int) -> list[NodeProto]:
    return _neuron(SPIKE_ADD.name, [x, x, "state"], [y, f"m{i}"])


def _gated_spike_add(x: str, y: str, i: int) -> list[NodeProto]:
    return _neuron(GATED_SPIKE_ADD.name, [x, x, "state", x], [y, f"m{i}"])


def _integrate_fire(x: str, y: str, i: int) -> list[NodeProto]:
    inputs = [x, "one", "one"]
    return [helper.make_node(INTEGRATE_FIRE.name, inputs, [y], domain=DOMAIN, leak=0.5, ternary=0.0, soft=1.0)]


def _attention(operator: str) -> Callable[[str, str, int], list[NodeProto]]:
    """Caches are states, so that they stay where they are; rotary angles cost nothing of note and are left out."""
    caches = ("keys", "values", "key_scales", "value_scales")[: 4 if operator == CACHED_ATTENTION_INT8.name else 2]

    def link(x: str, y: str, i: int) -> list[NodeProto]:
        inputs = [x, "key", "key", *(f"{STATE}{name}{i}" for name in caches), "position"]
        outputs = [y, *(f"{NEXT}{name}{i}" for name in caches)]
        attributes: dict[str, Any] = {
            "heads": 0,
            "window": 0,
            "rotary": 0,
            "theta": 1.0,
            "rotate": 0.0,
            "scale": 0.0,
            "cap": 0.0,
        }
        return [helper.make_node(operator, inputs, outputs, domain=DOMAIN, **attributes)]

    return link


PLAIN_NODES: dict[str, tuple[tuple[str, ...], Callable[[str, str, int], list[NodeProto]]]] = {
    "Add": (("Add",), _binary("Add", "vector")),
    "Sub": (("Sub",), _binary("Sub", "vector")),
    "Mul": (("Mul",), _binary("Mul", "ones")),
    "Relu": (("Relu",), _unary("Relu")),
    "Sigmoid": (("Sigmoid",), _unary("Sigmoid")),
    "LayerNormalization": (("LayerNormalization",), _binary("LayerNormalization", "ones", "vector")),
    "RmsNorm": (("RmsNorm",), _rms_norm),
    "shift": (("Unsqueeze", "Concat", "Slice"), _shift),
    "last": (("Gather",), _last),
    "Lif": (("Lif",), _lif),
    "Wkv": (("Wkv",), _wkv),
    "ShiftMix2": (("ShiftMix2",), _shift_mix(2)),
    "ShiftMix3": (("ShiftMix3",), _shift_mix(3)),
    "GatedWkv": (("GatedWkv",), _gated_wkv),
    "SpikeAdd": (("SpikeAdd",), _spike_add),
    "GatedSpikeAdd": (("GatedSpikeAdd",), _gated_spike_add),
    "IntegrateFire": (("IntegrateFire",), _integrate_fire),
    **{s.name: ((s.name,), _attention(s.name)) for s in ATTENTION},
}
"""Nodes without a matrix: which operators a link of the benchmark is priced as, and its nodes.

Unsqueeze, Concat and Slice are timed together, a third each; Gather is timed with an Unsqueeze, which is nothing beside
it. Attention looks back at DEPTH tokens, with heads of HEAD channels.
"""

DEPTH, SLOTS, HEAD = 160, 256, 64
"""Tokens that attention looks back at, as a measured token does on average; tokens that its caches have room for;
channels of a head. A width that HEAD does not divide is one head."""


def write_plain_benchmark(path: Path, name: str, width: int, count: int = 64) -> Microbenchmark:
    """x [1, 1, width] through so many links of `PLAIN_NODES[name]`."""
    operators, link = PLAIN_NODES[name]
    nodes = [node for i in range(count) for node in link(f"x{i}", f"x{i + 1}", i)]
    random = np.random.default_rng(0)
    constants: dict[str, Array] = {
        "vector": random.standard_normal(width, np.float32) / np.float32(8),
        "ones": np.ones(width, np.float32),
        "one": np.ones(1, np.float32),
        "mix": np.full((1, 1, width), 0.5, np.float32),
        "decay": np.full(width, -1, np.float32),
        "state": np.zeros((1, width), np.float32),
        "at1": np.array([1], np.int64),
        "end": np.array([2], np.int64),
        "last": np.array(-1, np.int64),
    }
    size = HEAD if width % HEAD == 0 else width
    constants |= {"key": constants["vector"][None, None], "position": np.array([[DEPTH]], np.int64)}
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name == "heads":
                attribute.i = width // size
    used = {name for node in nodes for name in node.input}
    block = BenchmarkBlock({name: array for name, array in constants.items() if name in used}, 0, moved_axis=0)
    priced = tuple((operator, width, 1) for operator in operators)
    benchmark = Microbenchmark(
        path=path, width=width, priced=priced, format="", count=count, working_set_bytes=8 * width,
        tensors=block.rotated,
    )  # fmt: skip
    return write_microbenchmark(nodes, block, benchmark, _caches(nodes, width // size, size))


def _caches(nodes: Sequence[NodeProto], groups: int, size: int) -> list[BenchmarkState]:
    """The states of nodes that attend, in the order of their inputs."""
    known = {s.name: s.inputs for s in ATTENTION}
    return [
        BenchmarkState(
            name, name.replace(STATE, NEXT, 1), (1, groups, SLOTS, *(() if "scales" in name else (size,))), p.type
        )
        for node in nodes
        for name, p in zip(node.input, known.get(node.op_type, ()), strict=False)
        if name.startswith(STATE)
    ]
