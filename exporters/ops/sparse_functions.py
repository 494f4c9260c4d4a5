"""ONNX function bodies of the sparse products: decoded at load (the runtime folds constants), right rather than lean.

A body is made for one shape and one format, because tiles, tables and patterns depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from exporters.formats.float4 import STEPS
from exporters.formats.integer import CODE_BITS, IntegerFormat
from exporters.formats.nm import NmFormat
from exporters.formats.patterns import Patterns
from exporters.formats.sparse_tiles import in_words, rank_bits
from exporters.formats.tiles import TILE_ROWS, WORD_BYTES
from exporters.formats.units import UNIT, units
from exporters.ops.activation_functions import ACTIVATION_GROUP, TINIEST
from exporters.ops.signatures import DOMAIN, SPARSE_LINEAR

OPSET = 21

Attributes = Mapping[str, int]


def _whole(a: Attributes) -> int:
    """Rows in whole tiles of 16."""
    return a["N"] // TILE_ROWS * TILE_ROWS


def _kept(a: Attributes) -> int:
    """Codes of a unit."""
    return UNIT * a["kept"] // a["period"]


def _in_words(a: Attributes) -> bool:
    values = IntegerFormat(a["bits"], a["group"], True)
    return a["tile"] == TILE_ROWS and in_words(NmFormat(a["kept"], a["period"], values, a["pattern_rows"]), a["K"])


class _Body:
    """Nodes in the making; every method adds some and names their result."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []

    def op(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value: NDArray[np.generic]) -> str:
        return self.op("Constant", value=numpy_helper.from_array(value))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def shaped(self, source: str, *shape: int) -> str:
        return self.op("Reshape", source, self.integers(*shape))

    def cut(self, source: str, start: int, end: int, axis: int) -> str:
        return self.op("Slice", source, self.integers(start), self.integers(end), self.integers(axis))

    def bits(self, source: str, shifts: NDArray[np.uint8], mask: int) -> str:
        """(source >> shifts) & mask, uint8, `shifts` broadcast against the source."""
        moved = self.op("BitShift", source, self.constant(shifts), direction="RIGHT")
        return self.op("BitwiseAnd", moved, self.constant(np.array(mask, np.uint8)))

    def untiled(self, source: str, rows: int, count: int, size: int, tile: int) -> str:
        """Rows [rows, count, size] of a packed tensor [rows, count * size] in tiles."""
        whole = rows // tile * tile
        pieces = []
        if whole:
            tiles = self.shaped(self.cut(source, 0, whole, 0), whole // tile, count, tile, size)
            pieces.append(self.shaped(self.op("Transpose", tiles, perm=[0, 2, 1, 3]), whole, count, size))
        if whole < rows:
            pieces.append(self.shaped(self.cut(source, whole, rows, 0), rows - whole, count, size))
        return pieces[0] if len(pieces) == 1 else self.op("Concat", *pieces, axis=0)

    def codes(self, source: str, a: Attributes, bits: int) -> str:
        """Codes uint8 [N, units * kept] of one packed tensor."""
        rows, whole, row_codes = a["N"], _whole(a), units(a["K"]) * _kept(a)
        if a["tile"] == 1:
            return self.unit_codes(source, rows, row_codes, _kept(a), bits)
        if _in_words(a):
            return self.word_codes(source, rows, row_codes, bits)
        places = self.word_codes(self.cut(source, 0, whole, 0), whole, row_codes, bits)
        by_place = self.shaped(places, whole, -1, a["kept"], 4)
        tiled = self.shaped(self.op("Transpose", by_place, perm=[0, 1, 3, 2]), whole, row_codes)
        if whole == rows:
            return tiled
        rest = self.cut(source, whole, rows, 0)
        return self.op("Concat", tiled, self.unit_codes(rest, rows - whole, row_codes, _kept(a), bits), axis=0)

    def unit_codes(self, source: str, rows: int, row_codes: int, kept: int, bits: int) -> str:
        """Codes [rows, row_codes] of a packed tensor in units (exporters.formats.units)."""
        count, size = row_codes // kept, kept * bits // 8
        packed = self.shaped(source, rows, count, 1, size)
        shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
        return self.shaped(self.bits(packed, shifts, 2**bits - 1), rows, row_codes)

    def word_codes(self, source: str, rows: int, row_codes: int, bits: int) -> str:
        """Codes [rows, row_codes] of a packed tensor in words (exporters.formats.sparse_tiles)."""
        words = row_codes * bits // 8 // WORD_BYTES
        packed = self.shaped(self.untiled(source, rows, words, WORD_BYTES, TILE_ROWS), rows, words, 1, WORD_BYTES)
        shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
        return self.shaped(self.bits(packed, shifts, 2**bits - 1), rows, row_codes)

    def ranks(self, source: str, patterns: Patterns, rows: int, count: int) -> str:
        """Ranks uint8 [rows, periods] of whole tiles of patterns."""
        tiles, ranks, at = self.shaped(source, rows // TILE_ROWS, count, -1), "", 0
        for run in rank_bits(patterns):
            size = run.words * run.rows * WORD_BYTES
            cut = self.shaped(self.cut(tiles, at, at + size, 2), -1, count, run.words, run.rows, WORD_BYTES)
            words = self.shaped(
                self.op("Transpose", cut, perm=[0, 3, 1, 2, 4]), -1, 1, run.rows, count, run.words, 1, WORD_BYTES
            )
            part = self.shaped(self.bits(words, run.shifts, int(run.mask)), rows, -1)
            moved = self.op("BitShift", part, self.constant(np.array(run.first, np.uint8)), direction="LEFT")
            ranks = self.op("BitwiseOr", ranks, moved) if ranks else moved
            at += size
        return ranks

    def masks(self, source: str, patterns: Patterns, a: Attributes) -> str:
        """Bits int32 [N, fields, width]: one where a code is stored."""
        whole, count = _whole(a), units(a["K"])
        if a["tile"] == 1 or a["pattern_rows"] > 1:
            return self.field_masks(source, patterns, a, a["N"])
        ranks = self.op("Cast", self.ranks(self.cut(source, 0, whole, 0), patterns, whole, count), to=TensorProto.INT32)
        table = (patterns.masks[: 2**patterns.rank_bits, None] >> np.arange(patterns.period)) & 1
        found = self.op("Gather", self.constant(table.astype(np.int32)), ranks, axis=0)
        tiled = self.shaped(found, whole, -1, patterns.width)
        if whole == a["N"]:
            return tiled
        rest = self.field_masks(self.cut(source, whole, a["N"], 0), patterns, a, a["N"] - whole)
        return self.op("Concat", tiled, rest, axis=0)

    def field_masks(self, source: str, patterns: Patterns, a: Attributes, N: int) -> str:
        """The same from fields (exporters.formats.patterns)."""
        count, width = units(a["K"]), patterns.width
        fields = count * UNIT // width
        size = UNIT // width * patterns.field_bits // 8
        rows = -(-N // a["pattern_rows"])
        each = self.shaped(source, rows, count * size, 1)
        bits = self.shaped(self.bits(each, np.arange(8, dtype=np.uint8), 1), rows, fields, patterns.field_bits)
        mask = self.op("Cast", bits, to=TensorProto.INT32)
        if patterns.ranked:
            powers = self.constant((1 << np.arange(patterns.field_bits)).astype(np.int32))
            summed = self.op("ReduceSum", self.op("Mul", mask, powers), self.integers(-1), keepdims=0)
            table = (patterns.masks[:, None] >> np.arange(width)) & 1
            mask = self.op("Gather", self.constant(table.astype(np.int32)), summed, axis=0)
        if a["pattern_rows"] == 1:
            return mask
        row = np.arange(N, dtype=np.int64) // a["pattern_rows"]
        return self.op("Gather", mask, self.constant(row), axis=0)

    def expanded(self, codes: str, mask: str, patterns: Patterns, a: Attributes, zero: int) -> str:
        """Codes [N, columns] at their places, `zero` elsewhere."""
        width = patterns.width
        kept, fields = width * a["kept"] // a["period"], units(a["K"]) * UNIT // width
        by_field = self.shaped(codes, a["N"], fields, kept)
        filled = self.op("Concat", by_field, self.constant(np.full((a["N"], fields, 1), zero, np.uint8)), axis=2)
        before = self.op("CumSum", mask, self.constant(np.array(2, np.int64)), exclusive=1)
        is_kept = self.op("Cast", mask, to=TensorProto.BOOL)
        which = self.op("Where", is_kept, before, self.constant(np.array(kept, np.int32)))
        return self.shaped(self.op("GatherElements", filled, which, axis=2), a["N"], -1)

    def dense_codes(self, source: str, a: Attributes) -> str:
        """Codes uint8 [N, padded columns] of a matrix of four bits that keeps everything (exporters.formats.tiles)."""
        words = -(-a["K"] // a["group"]) * a["group"] // 8
        rows = self.untiled(self.shaped(source, a["N"], words * WORD_BYTES), a["N"], words, WORD_BYTES, TILE_ROWS)
        nibbles = self.bits(self.shaped(rows, a["N"], words * WORD_BYTES, 1), np.array([0, 4], np.uint8), 15)
        return self.shaped(nibbles, a["N"], -1)

    def weight(self, a: Attributes, names: Mapping[str, str]) -> str:
        """The matrix float32 [N, K]."""
        low, high = CODE_BITS[a["bits"]]
        dense = a["kept"] == a["period"]
        codes = self.dense_codes(names["codes"], a) if dense else self.codes(names["codes"], a, low)
        if high:
            above = self.codes(names["high"], a, high)
            moved = self.op("BitShift", above, self.constant(np.array(low, np.uint8)), direction="LEFT")
            codes = self.op("BitwiseOr", codes, moved)
        if not dense:
            patterns = Patterns(a["kept"], a["period"])
            mask = self.masks(names["patterns"], patterns, a)
            codes = self.expanded(codes, mask, patterns, a, 0 if a["float4"] else 2 ** (a["bits"] - 1))
        codes = self.cut(codes, 0, a["K"], 1)
        if a["float4"]:
            steps = self.op("Gather", self.constant(STEPS), self.op("Cast", codes, to=TensorProto.INT32), axis=0)
        else:
            centre = self.constant(np.array(2 ** (a["bits"] - 1), np.float32))
            steps = self.op("Sub", self.op("Cast", codes, to=TensorProto.FLOAT), centre)
        group = self.constant(np.arange(a["K"], dtype=np.int64) // a["group"])
        groups = -(-a["K"] // a["group"])
        by_row = self.shaped(self.untiled(names["scales"], a["N"], groups, 1, a["tile"]), a["N"], groups)
        scales = self.op("Gather", self.op("Cast", by_row, to=TensorProto.FLOAT), group, axis=1)
        return self.op("Mul", steps, scales)

    def rounded(self, x: str, a: Attributes) -> str:
        """x as activation_bits = 8 reads it: 127 steps of max |x| per block, ties to even."""
        block = min(a["group"], ACTIVATION_GROUP)
        count = -(-a["K"] // block)
        missing = count * block - a["K"]
        last = self.integers(-1)
        # ONNX Runtime 1.24 misses the axes of a Pad with constant pads when it infers shapes inside a function.
        pads = self.op("Concat", self.integers(0), self.integers(missing), axis=0)
        padded = self.op("Pad", x, pads, "", last) if missing else x
        lead = self.op("Shape", x, start=0, end=-1)
        blocks = self.op("Reshape", padded, self.op("Concat", lead, self.integers(count, block), axis=0))
        largest = self.op("ReduceMax", self.op("Abs", blocks), last, keepdims=1)
        top, nothing = self.constant(np.array(127, np.float32)), self.constant(np.array(0, np.float32))
        tiniest = self.constant(np.array(TINIEST, np.float32))
        inverse = self.op("Where", self.op("Greater", largest, tiniest), self.op("Div", top, largest), nothing)
        steps = self.op("Round", self.op("Mul", blocks, inverse))
        seen = self.op("Mul", steps, self.op("Div", largest, top))
        flat = self.op("Reshape", seen, self.op("Concat", lead, self.integers(count * block), axis=0))
        return self.cut(flat, 0, a["K"], -1) if missing else flat


def sparse_linear_function(attributes: Attributes) -> FunctionProto:
    """SparseLinear for one shape and one format, said by all the node's attributes."""
    body = _Body()
    weight = body.weight(attributes, {p.name: p.name for p in SPARSE_LINEAR.inputs})
    transposed = body.op("Transpose", weight, perm=[1, 0])
    x = body.rounded("x", attributes) if attributes["activation_bits"] == 8 else "x"
    body.nodes.append(helper.make_node("MatMul", [x, transposed], ["y"]))
    return helper.make_function(
        DOMAIN,
        SPARSE_LINEAR.name,
        [p.name for p in SPARSE_LINEAR.inputs],
        ["y"],
        body.nodes,
        [helper.make_opsetid("", OPSET)],
        attributes=list(SPARSE_LINEAR.ints),
    )
