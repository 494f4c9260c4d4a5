"""Chains of products with a matrix, as small ONNX models: what a cost table is measured on."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from exporters.artifact.errors import SlmcError
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from exporters.formats.parts import Node
from exporters.microbenchmark_files import BenchmarkBlock, Microbenchmark, write_microbenchmark
from exporters.ops.signatures import DOMAIN, SIGNATURES


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
