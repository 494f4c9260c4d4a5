"""ONNX function bodies of attention over a key-value cache, in standard operators."""

from __future__ import annotations

from collections.abc import Mapping

SMALLEST_SCALE = 1e-12
"""Keeps the scale of an all-zero key from being zero."""

_SIZES = """
    last = Constant <value_ints: ints = [-1]> ()
    zero = Constant <value_int: int = 0> ()
    one = Constant <value_int: int = 1> ()
    two = Constant <value_int: int = 2> ()
    any_zero = Constant <value_ints: ints = [0]> ()
    any_two = Constant <value_ints: ints = [0, 0]> ()
    groups_1 = Shape <start = 1, end = 2> (keys)
    length_1 = Shape <start = 2, end = 3> (keys)
    width_1 = Shape <start = 3, end = 4> (keys)
    time_1 = Shape <start = 1, end = 2> (q)
    length = Squeeze(length_1)
    width = Squeeze(width_1)
    time = Squeeze(time_1)
    split_shape = Concat <axis = 0> (any_two, last, width_1)
    q_heads = Reshape(q, split_shape)
    k_heads = Reshape(k, split_shape)
    v_heads = Reshape(v, split_shape)
    steps = Range(zero, time, one)
    positions = Add(position, steps)"""

_SLOTS = """
    v_turned = Transpose <perm = [0, 2, 1, 3]> (v_heads)
    slots = Range(zero, length, one)
    start = Squeeze(position)
    since = Sub(slots, start)
    not_before = GreaterOrEqual(since, zero)
    not_after = Less(since, time)
    is_new = And(not_before, not_after)
    among_new = Add(since, length)
    source = Where(is_new, among_new, slots)"""

_ANGLES = """
    pairs = Range(zero, turning, two)
    pairs_f = Cast <to = 1> (pairs)
    turning_f = Cast <to = 1> (turning)
    exponents = Div(pairs_f, turning_f)
    theta_c = Constant <value_float: float = @theta> ()
    periods = Pow(theta_c, exponents)
    inverse = Reciprocal(periods)
    positions_f = Cast <to = 1> (positions)
    positions_wide = Unsqueeze(positions_f, last)
    angles = Mul(positions_wide, inverse)
    cos_t = Cos(angles)
    sin_t = Sin(angles)"""

_TABLES = """
    cos_t = Identity(cos)
    sin_t = Identity(sin)"""


def turned_halves(x: str, heads: str, cos: str, sin: str) -> str:
    """Text of nodes that turn `heads`, the first half of whose channels pairs with the second: {x}_low and {x}_high."""
    return f"""
    {x}_first, {x}_second = Split <axis = -1, num_outputs = 2> ({heads})
    {x}_fc = Mul({x}_first, {cos})
    {x}_ss = Mul({x}_second, {sin})
    {x}_low = Sub({x}_fc, {x}_ss)
    {x}_sc = Mul({x}_second, {cos})
    {x}_fs = Mul({x}_first, {sin})
    {x}_high = Add({x}_sc, {x}_fs)"""


def _turned(x: str, part: bool) -> str:
    """Text of nodes that turn the first channels of heads x, all of them or a part; then heads before time."""
    turning = f"Slice({x}_heads, any_zero, turning_1, last)" if part else f"Identity({x}_heads)"
    text = f"\n    {x}_turning = {turning}" + turned_halves(x, f"{x}_turning", "cos_wide", "sin_wide")
    if part:
        text += f"\n    {x}_still = Slice({x}_heads, turning_1, width_1, last)"
    return f"""{text}
    {x}_turned_t = Concat <axis = -1> ({x}_low, {x}_high{f", {x}_still" if part else ""})
    {x}_turned = Transpose <perm = [0, 2, 1, 3]> ({x}_turned_t)"""


def _rotation(attributes: Mapping[str, float], tables: bool) -> str:
    if not attributes["rotate"]:
        return "".join(f"\n    {x}_turned = Transpose <perm = [0, 2, 1, 3]> ({x}_heads)" for x in "qk")
    part = attributes["rotary"] != 0
    return f"""
    turning = {"Constant <value_int: int = @rotary> ()" if part else "Identity(width)"}
    turning_1 = Reshape(turning, last){_TABLES if tables else _ANGLES}
    angle_axis = Constant <value_ints: ints = [2]> ()
    cos_wide = Unsqueeze(cos_t, angle_axis)
    sin_wide = Unsqueeze(sin_t, angle_axis){_turned("q", part)}{_turned("k", part)}"""


def _scores(attributes: Mapping[str, float]) -> str:
    """Text of nodes that give the scores, and say which of them count."""
    scale = "Constant <value_float: float = @scale> ()"
    if not attributes["scale"]:
        scale = "Reciprocal(root)"
    text = f"""
    group_shape = Concat <axis = 0> (any_zero, groups_1, last, width_1)
    q_grouped = Reshape({"q_mixed" if attributes.get("hadamard") else "q_turned"}, group_shape)
    keys_t = Transpose <perm = [0, 1, 3, 2]> (all_keys)
    products = MatMul(q_grouped, keys_t)
    width_f = Cast <to = 1> (width)
    root = Sqrt(width_f)
    score_scale = {scale}
    scaled = Mul(products, score_scale)
    score_shape = Concat <axis = 0> (any_two, last, time_1, length_1)"""
    if attributes["cap"]:
        text += """
    cap_c = Constant <value_float: float = @cap> ()
    of_cap = Div(scaled, cap_c)
    bent = Tanh(of_cap)
    capped = Mul(bent, cap_c)"""
    text += f"""
    scores = Reshape({"capped" if attributes["cap"] else "scaled"}, score_shape)
    own_axes = Constant <value_ints: ints = [1, 3]> ()
    own = Unsqueeze(positions, own_axes)
    {"seen" if not attributes["window"] else "not_later"} = LessOrEqual(slots, own)"""
    if attributes["window"]:
        text += """
    window_c = Constant <value_int: int = @window> ()
    own_less = Sub(own, window_c)
    not_left = Greater(slots, own_less)
    seen = And(not_later, not_left)"""
    return text


_MIX = """
    never = Constant <value_float: float = -3.0e38> ()
    masked = Where(seen, scores, never)
    shares = Softmax <axis = -1> (masked)
    share_shape = Concat <axis = 0> (any_two, last, length_1)
    shares_grouped = Reshape(shares, share_shape)
    of_values = MatMul(shares_grouped, all_values)@UNMIX
    head_count = Constant <value_int: int = @heads> ()
    head_count_1 = Reshape(head_count, last)
    head_shape = Concat <axis = 0> (any_zero, head_count_1, time_1, width_1)
    by_head = Reshape(@OF_VALUES, head_shape)
    by_time = Transpose <perm = [0, 2, 1, 3]> (by_head)
    flat_shape = Concat <axis = 0> (any_two, last)
    y = Reshape(by_time, flat_shape)"""


def _hadamard(block: int) -> str:
    """Text of nodes that make the matrix [block, block]: entry (i, j) is -1 if i and j share an odd number of bits."""
    powers = ", ".join(str(1 << bit) for bit in range(block.bit_length() - 1))
    return f"""
    block = Constant <value_int: int = @hadamard> ()
    block_shape = Constant <value_ints: ints = [0, 0, -1, {block}]> ()
    unblock_shape = Concat <axis = 0> (any_two, last, width_1)
    places = Range(zero, block, one)
    places_wide = Unsqueeze(places, last)
    powers = Constant <value_ints: ints = [{powers}]> ()
    halves = Div(places_wide, powers)
    bits = Mod(halves, two)
    bits_f = Cast <to = 1> (bits)
    bits_t = Transpose <perm = [1, 0]> (bits_f)
    shared_bits_f = MatMul(bits_f, bits_t)
    shared_bits = Cast <to = 7> (shared_bits_f)
    odd = Mod(shared_bits, two)
    twice = Mul(odd, two)
    signs = Sub(one, twice)
    hadamard_matrix = Cast <to = 1> (signs)
    block_f = Cast <to = 1> (block)"""


def _mixed(x: str, to: str, shrunk: bool) -> str:
    """Text of nodes that multiply heads x by the matrix, and divide them by its size if they are to shrink."""
    text = f"""
    {to}_blocks = Reshape({x}, block_shape)
    {to}_products = MatMul({to}_blocks, hadamard_matrix)"""
    if not shrunk:
        return text + f"\n    {to} = Reshape({to}_products, unblock_shape)"
    return (
        text
        + f"""
    {to}_large = Reshape({to}_products, unblock_shape)
    {to} = Div({to}_large, block_f)"""
    )


ROUNDING = f"""
    smallest = Constant <value_float: float = {SMALLEST_SCALE}> ()
    largest_code = Constant <value_float: float = 127.0> ()"""
"""Nodes with what `rounded_rows` asks for beside `last`."""


def rounded_rows(new: str) -> str:
    """Text of nodes that round the rows {new}_turned to {new}_codes of 8 bits, with {new}_scales."""
    return f"""
    {new}_abs = Abs({new}_turned)
    {new}_most = ReduceMax <keepdims = 0> ({new}_abs, last)
    {new}_positive = Max({new}_most, smallest)
    {new}_scales = Div({new}_positive, largest_code)
    {new}_scales_wide = Unsqueeze({new}_scales, last)
    {new}_ratio = Div({new}_turned, {new}_scales_wide)
    {new}_round = Round({new}_ratio)
    {new}_codes = Cast <to = 3> ({new}_round)"""


def _rounded(new: str, cache: str) -> str:
    """Text of nodes that round new keys or values and put them into their cache, and decode the whole of it."""
    singular = cache.removesuffix("s")
    return f"""{rounded_rows(new)}
    both_{cache} = Concat <axis = 2> ({cache}, {new}_codes)
    {cache}_out = Gather <axis = 2> (both_{cache}, source)
    both_{singular}_scales = Concat <axis = 2> ({singular}_scales, {new}_scales)
    {singular}_scales_out = Gather <axis = 2> (both_{singular}_scales, source)
    {cache}_codes_f = Cast <to = 1> ({cache}_out)
    {cache}_scales_wide = Unsqueeze({singular}_scales_out, last)
    all_{cache} = Mul({cache}_codes_f, {cache}_scales_wide)"""


_STORED = {
    "CachedAttention": (
        "(q, k, v, keys, values, position, cos, sin) => (y, keys_out, values_out)",
        """
    both_keys = Concat <axis = 2> (keys, k_turned)
    keys_out = Gather <axis = 2> (both_keys, source)
    both_values = Concat <axis = 2> (values, v_turned)
    values_out = Gather <axis = 2> (both_values, source)
    all_keys = Identity(keys_out)
    all_values = Identity(values_out)""",
    ),
    "CachedAttentionHalf": (
        "(q, k, v, keys, values, position, cos, sin) => (y, keys_out, values_out)",
        """
    k_half = Cast <to = 10> (k_turned)
    both_keys = Concat <axis = 2> (keys, k_half)
    keys_out = Gather <axis = 2> (both_keys, source)
    v_half = Cast <to = 10> (v_turned)
    both_values = Concat <axis = 2> (values, v_half)
    values_out = Gather <axis = 2> (both_values, source)
    all_keys = Cast <to = 1> (keys_out)
    all_values = Cast <to = 1> (values_out)""",
    ),
    "CachedAttentionInt8": (
        """(q, k, v, keys, values, key_scales, value_scales, position, cos, sin)
        => (y, keys_out, values_out, key_scales_out, value_scales_out)""",
        f"{ROUNDING}{_rounded('k', 'keys')}{_rounded('v', 'values')}",
    ),
}
"""By operator: its inputs and outputs, and nodes that store new rows and give `all_keys` and `all_values`."""


def attention_text(operator: str, attributes: Mapping[str, float], tables: bool) -> str:
    """The body of a node; tables: whether it has inputs cos and sin."""
    ports, stored = _STORED[operator]
    rotation, mix, block = _rotation(attributes, tables), _MIX, int(attributes.get("hadamard", 0))
    mixing = ""
    if block:
        mixing = _hadamard(block) + _mixed("q_turned", "q_mixed", True)
        mixing += _mixed("k_turned", "k_mixed", False) + _mixed("v_turned", "v_mixed", False)
        stored = stored.replace("k_turned", "k_mixed").replace("v_turned", "v_mixed")
    unmix = _mixed("of_values", "unmixed", True) if block else ""
    mix = mix.replace("@UNMIX", unmix).replace("@OF_VALUES", "unmixed" if block else "of_values")
    names = "heads, window, rotary, hadamard" if "Int8" in operator else "heads, window, rotary"
    return f"""
{operator} <{names}, theta, rotate, scale, cap> {ports} {{{_SIZES}{rotation}{_SLOTS}{mixing}{stored}{
        _scores(attributes)
    }{mix}
}}"""
