"""ONNX function bodies of our operators: their meaning in standard operators, so that any ONNX Runtime runs them."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import FunctionProto, parser

from exporters.formats.integer import CODE_BITS, GROUPS
from exporters.formats.tiles import TILE_ROWS, WORD_BYTES
from exporters.ops.activation_functions import ACTIVATION_GROUP, rounding_text
from exporters.ops.anchored_functions import ANCHORED_ATTENTION, ANCHORED_ATTENTION_INT8
from exporters.ops.attention_functions import attention_text
from exporters.ops.channel_functions import CHANNEL_BODIES
from exporters.ops.fusion_functions import FUSION_BODIES, LIF_STEPS, WKV_STEPS
from exporters.ops.signatures import DOMAIN
from exporters.ops.spike_functions import INTEGRATE_FIRE
from exporters.ops.ternary_functions import TERNARY_LINEAR

OPSET = 21
_HEADER = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}, "com.microsoft" : 1]'

_LIF = f"""
Lif <tau, threshold, reset> (current, membrane) => (spikes, membrane_out) {{
    {LIF_STEPS}
}}"""

_WKV = f"""
Wkv (decay, first, key, value, numerator, denominator, exponent) => (y, numerator_out, denominator_out, exponent_out) {{
    {WKV_STEPS}
}}"""

_HALF_LINEAR = """
HalfLinear (x, w) => (y) {
    w32 = Cast <to = 1> (w)
    w_t = Transpose <perm = [1, 0]> (w32)
    y = MatMul(x, w_t)
}"""

_SIGN_EMBEDDING = """
SignEmbedding <K, N> (tokens, codes) => (y) {
    rows = Gather <axis = 0> (codes, tokens)
    UNPACK
    bits = Cast <to = 1> (rows_flat)
    two = Constant <value_float: float = 2.0> ()
    one = Constant <value_float: float = 1.0> ()
    doubled = Mul(bits, two)
    padded = Sub(doubled, one)
    SLICE
}"""

_NBITS_PRODUCT = """
    scales32 = Cast <to = 1> (scales{of})
    y = com.microsoft.MatMulNBits <K: int = @K, N: int = @N, bits: int = @bits, block_size: int = @group,
        accuracy_level = {level}> ({x}, codes{of}, scales32{zeros})"""

_ZEROS_OF_EIGHT = """
    row_and_group = Shape <start = 0, end = 2> (codes)
    per_byte = Constant <value_ints: ints = [1, 2]> ()
    one_less = Constant <value_ints: ints = [0, 1]> ()
    raised = Add(row_and_group, one_less)
    row_and_byte = Div(raised, per_byte)
    eights = ConstantOfShape <value: tensor = uint8[1] {136}> (row_and_byte)"""
"""Zero points 8 and 8 in every byte, which MatMulNBits would take by itself; said, they keep it from KleidiAI on Arm,
which rounds x once more, per row and with an offset."""


def _unpack(source: str, target: str, bits: int) -> str:
    """Text of nodes that turn bytes `source` [..., n] into codes `target` [..., n * 8 / bits]."""
    shifts = list(range(0, 8, bits))
    listed = ", ".join(map(str, shifts))
    return f"""
    {source}_axis = Constant <value_ints: ints = [-1]> ()
    {source}_wide = Unsqueeze({source}, {source}_axis)
    {source}_shifts = Constant <value: tensor = uint8[{len(shifts)}] {{{listed}}}> ()
    {source}_moved = BitShift <direction = "RIGHT"> ({source}_wide, {source}_shifts)
    {source}_mask = Constant <value: tensor = uint8[1] {{{2**bits - 1}}}> ()
    {source}_codes = BitwiseAnd({source}_moved, {source}_mask)
    {source}_shape = Shape <start = 0, end = -1> ({source})
    {source}_merged = Concat <axis = 0> ({source}_shape, {source}_axis)
    {target} = Reshape({source}_codes, {source}_merged)"""


def _slice(source: str, target: str) -> str:
    """Text of nodes that keep the first K entries of the last axis."""
    return f"""
    slice_start = Constant <value_ints: ints = [0]> ()
    slice_end_0 = Constant <value_int: int = @K> ()
    slice_axis = Constant <value_ints: ints = [-1]> ()
    slice_end = Reshape(slice_end_0, slice_axis)
    {target} = Slice({source}, slice_start, slice_end, slice_axis)"""


def _decoded(bits: int, zeros: bool, gather: bool, of: str = "", table: bool = False) -> str:
    """Text of nodes that decode tensors (names end in `of`) to `weight` [..., K]: all rows, or the rows of `tokens`.

    table: codes stand for `steps`.
    """

    def rows(name: str) -> str:
        return f"{name}_rows = " + (f"Gather <axis = 0> ({name}{of}, tokens)" if gather else f"Identity({name}{of})")

    low, high = CODE_BITS[bits]
    text = rows("codes") + (_unpack("codes_rows", "low", low) if low < 8 else "\n    low = Identity(codes_rows)")
    if high:
        text += f"""
    {rows("high")}{_unpack("high_rows", "upper", high)}
    upper_by = Constant <value: tensor = uint8[1] {{{low}}}> ()
    upper_moved = BitShift <direction = "LEFT"> (upper, upper_by)
    all_codes = BitwiseOr(low, upper_moved)"""
    else:
        text += "\n    all_codes = Identity(low)"
    text += "\n    last = Constant <value_ints: ints = [-1]> ()"
    if table:
        text += """
    steps32 = Cast <to = 1> (steps)
    numbers = Cast <to = 7> (all_codes)
    centred = Gather <axis = 0> (steps32, numbers)"""
    elif zeros:
        text += f"\n    {rows('zeros')}\n    zeros32 = Cast <to = 1> (zeros_rows)\n    zero = Unsqueeze(zeros32, last)"
    else:
        text += f"\n    zero = Constant <value_float: float = {float(2 ** (bits - 1))}> ()"
    if not table:
        text += "\n    floats = Cast <to = 1> (all_codes)\n    centred = Sub(floats, zero)"
    text += f"""
    {rows("scales")}
    scales32 = Cast <to = 1> (scales_rows)
    scales_wide = Unsqueeze(scales32, last)
    scaled = Mul(centred, scales_wide)
    group_shape = Shape <start = 0, end = -2> (scaled)
    flat_shape = Concat <axis = 0> (group_shape, last)
    flat = Reshape(scaled, flat_shape){_slice("flat", "weight")}"""
    return text


def _function(text: str) -> FunctionProto:
    return parser.parse_function(_HEADER + ">" + text)


def is_nbits(bits: int, group: int, zeros: bool) -> bool:
    """Whether MatMulNBits serves integer packed tensors as they are."""
    return bits == 4 and not zeros and group in GROUPS


def _row_by_row(bits: int, zeros: bool) -> str:
    """Text of nodes that put tiled tensors (exporters.formats.tiles) row by row, their names with `_ordered` behind."""
    units = {"codes": WORD_BYTES, "scales": 1} | ({"high": WORD_BYTES} if CODE_BITS[bits][1] else {})
    text = f"""
    tile_rows = Constant <value_ints: ints = [{TILE_ROWS}]> ()
    some = Constant <value_ints: ints = [-1]> ()
    none = Constant <value_ints: ints = [0]> ()
    all_rows = Shape <start = 0, end = 1> (codes)
    tiles = Div(all_rows, tile_rows)
    whole = Mul(tiles, tile_rows)"""
    for name, unit in (units | ({"zeros": 1} if zeros else {})).items():
        text += f"""
    {name}_unit = Constant <value_ints: ints = [{unit}]> ()
    {name}_first = Slice({name}, none, whole, none)
    {name}_rest = Slice({name}, whole, all_rows, none)
    {name}_apart = Concat <axis = 0> (tiles, some, tile_rows, {name}_unit)
    {name}_units = Reshape({name}_first, {name}_apart)
    {name}_turned = Transpose <perm = [0, 2, 1, 3]> ({name}_units)
    {name}_behind = Shape <start = 1> ({name})
    {name}_shape = Concat <axis = 0> (whole, {name}_behind)
    {name}_tiled = Reshape({name}_turned, {name}_shape)
    {name}_ordered = Concat <axis = 0> ({name}_tiled, {name}_rest)"""
    return text


def qlinear_function(bits: int, group: int, zeros: bool, activation_bits: int, tile: int) -> FunctionProto:
    """QLinear for one width; other than 4 bits are decoded (once, at load: the runtime folds constants).

    Inputs that are rounded already lose nothing when MatMulNBits rounds them again in the same blocks (level 4).
    """
    product = """
    weight_t = Transpose <perm = [1, 0]> (weight)
    y = MatMul({x}, weight_t)"""
    eight, of = activation_bits == 8, "_ordered" if tile else ""
    if is_nbits(bits, group, zeros):
        again = eight and group <= ACTIVATION_GROUP
        product = (_ZEROS_OF_EIGHT if again else "") + _NBITS_PRODUCT.replace("{zeros}", ", eights" if again else "")
        product = product.replace("{level}", "4" if again else "0").replace("{of}", of)
    else:
        product = _decoded(bits, zeros, gather=False, of=of) + product
    body = f"""
QLinear <K, N, bits, group, activation_bits, tile> (x, codes, scales, high, zeros) => (y) {{
    {_row_by_row(bits, zeros) if tile else ""}
    {rounding_text("x", "x_rounded", group) if eight else ""}
    {product.replace("{x}", "x_rounded" if eight else "x")}
}}"""
    return _function(body)


def table_linear_function(bits: int, group: int, activation_bits: int, tile: int) -> FunctionProto:
    """TableLinear for one width, decoded once, at load."""
    eight = activation_bits == 8
    body = f"""
TableLinear <K, N, bits, group, activation_bits, tile> (x, codes, scales, high, steps) => (y) {{
    {_row_by_row(bits, zeros=False) if tile else ""}
    {rounding_text("x", "x_rounded", group) if eight else ""}
    {_decoded(bits, zeros=False, gather=False, of="_ordered" if tile else "", table=True)}
    weight_t = Transpose <perm = [1, 0]> (weight)
    y = MatMul({"x_rounded" if eight else "x"}, weight_t)
}}"""
    return _function(body)


def table_embedding_function(bits: int, tile: int) -> FunctionProto:
    """TableEmbedding for one width."""
    body = f"""
TableEmbedding <K, N, bits, group, tile> (tokens, codes, scales, high, steps) => (y) {{
    {_row_by_row(bits, zeros=False) if tile else ""}
    {_decoded(bits, zeros=False, gather=True, of="_ordered" if tile else "", table=True)}
    y = Identity(weight)
}}"""
    return _function(body)


def qembedding_function(bits: int, group: int, zeros: bool, tile: int) -> FunctionProto:
    """QEmbedding for one width: the rows are gathered first, then decoded; tiles are put in order once, at load."""
    body = f"""
QEmbedding <K, N, bits, group, tile> (tokens, codes, scales, high, zeros) => (y) {{
    {_row_by_row(bits, zeros) if tile else ""}
    {_decoded(bits, zeros, gather=True, of="_ordered" if tile else "")}
    y = Identity(weight)
}}"""
    return _function(body)


def attention_function(operator: str, attributes: Mapping[str, float], tables: bool) -> FunctionProto:
    """CachedAttention of any kind of cache; tables: whether the node has inputs cos and sin."""
    return _function(attention_text(operator, attributes, tables))


def plain_functions() -> dict[str, FunctionProto]:
    """The bodies of the operators that need one only, by operator."""
    sign = _SIGN_EMBEDDING.replace("UNPACK", _unpack("rows", "rows_flat", 1)).replace("SLICE", _slice("padded", "y"))
    return {
        "Lif": _function(_LIF),
        "Wkv": _function(_WKV),
        "HalfLinear": _function(_HALF_LINEAR),
        "SignEmbedding": _function(sign),
        "AnchoredAttention": _function(ANCHORED_ATTENTION),
        "AnchoredAttentionInt8": _function(ANCHORED_ATTENTION_INT8),
        "TernaryLinear": _function(TERNARY_LINEAR),
        "IntegrateFire": _function(INTEGRATE_FIRE),
        **{name: _function(text) for name, text in (FUSION_BODIES | CHANNEL_BODIES).items()},
    }
