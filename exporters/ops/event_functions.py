"""ONNX function bodies of EventLinear: decoded once, at load, to the matrix that a dense product takes."""

from __future__ import annotations

from onnx import FunctionProto, parser

from exporters.formats.event import BLOCK_WORDS
from exporters.formats.integer import CODE_BITS
from exporters.ops.activation_functions import rounding_text
from exporters.ops.functions import OPSET
from exporters.ops.signatures import DOMAIN

# Codes lie by word and place; outputs by place and word, per block: a transposition, of whole blocks and of the rest.
_BODY = """
<domain: "{domain}", opset_import: ["" : {opset}]>
EventLinear <K, N, bits, group, activation_bits> (x, codes, scales, high, zeros) => (y) {{
    last = Constant <value_ints: ints = [-1]> ()
    none = Constant <value_ints: ints = [0]> ()
    second = Constant <value_ints: ints = [1]> ()
    inputs_0 = Constant <value_int: int = @K> ()
    inputs = Reshape(inputs_0, second)
    outputs_0 = Constant <value_int: int = @N> ()
    outputs = Reshape(outputs_0, second)
    places = Constant <value_ints: ints = [{places}]> ()
    block_words = Constant <value_ints: ints = [{block_words}]> ()
    block = Mul(places, block_words)
    {codes}
    floats = Cast <to = 1> (all_codes)
    stored = Shape <start = 1, end = 2> (floats)
    blocks = Div(stored, block)
    whole = Mul(blocks, block)
    head = Slice(floats, none, whole, second)
    head_shape = Concat <axis = 0> (inputs, blocks, block_words, places)
    head_words = Reshape <allowzero = 1> (head, head_shape)
    head_places = Transpose <perm = [0, 1, 3, 2]> (head_words)
    head_flat_shape = Concat <axis = 0> (inputs, whole)
    head_flat = Reshape <allowzero = 1> (head_places, head_flat_shape)
    rest = Sub(stored, whole)
    rest_words = Div(rest, places)
    tail = Slice(floats, whole, stored, second)
    tail_shape = Concat <axis = 0> (inputs, rest_words, places)
    tail_words = Reshape <allowzero = 1> (tail, tail_shape)
    tail_places = Transpose <perm = [0, 2, 1]> (tail_words)
    tail_flat_shape = Concat <axis = 0> (inputs, rest)
    tail_flat = Reshape <allowzero = 1> (tail_places, tail_flat_shape)
    padded = Concat <axis = 1> (head_flat, tail_flat)
    by_input = Slice(padded, none, outputs, second)
    group_0 = Constant <value_int: int = @group> ()
    numbers_end = Squeeze(inputs)
    zero_0 = Constant <value_int: int = 0> ()
    one_0 = Constant <value_int: int = 1> ()
    numbers = Range(zero_0, numbers_end, one_0)
    groups = Div(numbers, group_0)
    {zeros}
    centred = Sub(by_input, zero)
    scales32 = Cast <to = 1> (scales)
    scale = Gather <axis = 0> (scales32, groups)
    weight = Mul(centred, scale)
    {rounding}
    y = MatMul({x}, weight)
}}"""


def _unpacked(source: str, target: str, bits: int) -> str:
    """Text of nodes that turn bytes [K, n] into codes [K, n * 8 / bits]."""
    shifts = range(0, 8, bits)
    return f"""
    {source}_wide = Unsqueeze({source}, last)
    {source}_shifts = Constant <value: tensor = uint8[{len(shifts)}] {{{", ".join(map(str, shifts))}}}> ()
    {source}_moved = BitShift <direction = "RIGHT"> ({source}_wide, {source}_shifts)
    {source}_mask = Constant <value: tensor = uint8[1] {{{2**bits - 1}}}> ()
    {source}_codes = BitwiseAnd({source}_moved, {source}_mask)
    {source}_shape = Concat <axis = 0> (inputs, last)
    {target} = Reshape({source}_codes, {source}_shape)"""


def event_function(bits: int, group: int, zeros: bool, activation_bits: int) -> FunctionProto:
    """EventLinear for one width, with zero points or without, of x as it is (32) or rounded (8)."""
    low, high = CODE_BITS[bits]
    eight = activation_bits == 8
    codes = _unpacked("codes", "low", low) if low < 8 else "low = Identity(codes)"
    if high:
        codes += f"""{_unpacked("high", "upper", high)}
    upper_by = Constant <value: tensor = uint8[1] {{{low}}}> ()
    upper_moved = BitShift <direction = "LEFT"> (upper, upper_by)
    all_codes = BitwiseOr(low, upper_moved)"""
    else:
        codes += "\n    all_codes = Identity(low)"
    zero = "zeros32 = Cast <to = 1> (zeros)\n    zero = Gather <axis = 0> (zeros32, groups)"
    if not zeros:
        zero = f"zero = Constant <value_float: float = {float(2 ** (bits - 1))}> ()"
    text = _BODY.format(
        domain=DOMAIN, opset=OPSET, places=32 // low,
        block_words=BLOCK_WORDS, codes=codes, zeros=zero, x="x_rounded" if eight else "x",
        rounding=rounding_text("x", "x_rounded", group) if eight else "",
    )  # fmt: skip
    return parser.parse_function(text.strip())
