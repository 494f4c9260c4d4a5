"""The ONNX function body of attention over the last tokens and the first ones, in standard operators."""

from __future__ import annotations

from exporters.ops.attention_functions import ROUNDING, rounded_rows, turned_halves


def _turned(x: str) -> str:
    return f"""{turned_halves(x, f"{x}_heads", "cos", "sin")}
    {x}_turned_t = Concat <axis = -1> ({x}_low, {x}_high)
    {x}_turned = Transpose <perm = [0, 2, 1, 3]> ({x}_turned_t)"""


def _held(name: str, read: str) -> str:
    """Text of nodes that say which token each slot holds after `read` tokens; negative where none."""
    return f"""
    {name}_last = Sub({read}, one)
    {name}_back = Sub({name}_last, slots)
    {name}_gone = Mod({name}_back, ring)
    {name}_newest = Sub({name}_last, {name}_gone)
    {name}_behind = GreaterOrEqual({name}_newest, anchors_c)
    {name}_in_ring = Where({name}_behind, {name}_newest, minus)
    {name}_read = Less(slots, {read})
    {name}_anchor = Where({name}_read, slots, minus)
    {name} = Where(is_anchor, {name}_anchor, {name}_in_ring)"""


_SIZES_AND_TURNS = f"""
    last = Constant <value_ints: ints = [-1]> ()
    zero = Constant <value_int: int = 0> ()
    one = Constant <value_int: int = 1> ()
    two = Constant <value_int: int = 2> ()
    minus = Constant <value_int: int = -1> ()
    nothing = Constant <value_float: float = 0.0> ()
    any_two = Constant <value_ints: ints = [0, 0]> ()
    anchors_c = Constant <value_int: int = @anchors> ()
    length_1 = Shape <start = 2, end = 3> (keys)
    width_1 = Shape <start = 3, end = 4> (keys)
    time_1 = Shape <start = 1, end = 2> (q)
    length = Squeeze(length_1)
    width = Squeeze(width_1)
    time = Squeeze(time_1)
    start = Squeeze(position)
    ring = Sub(length, anchors_c)
    split_shape = Concat <axis = 0> (any_two, last, width_1)
    q_heads = Reshape(q, split_shape)
    k_heads = Reshape(k, split_shape)
    v_heads = Reshape(v, split_shape)
    steps = Range(zero, time, one)
    places = Add(start, steps)
    pairs = Range(zero, width, two)
    pairs_f = Cast <to = 1> (pairs)
    width_f = Cast <to = 1> (width)
    exponents = Div(pairs_f, width_f)
    theta_c = Constant <value_float: float = @theta> ()
    periods = Pow(theta_c, exponents)
    unit = Constant <value_float: float = 1.0> ()
    inverse = Div(unit, periods)
    places_f = Cast <to = 1> (places)
    places_wide = Unsqueeze(places_f, last)
    angles_t = Mul(places_wide, inverse)
    angle_axis = Constant <value_ints: ints = [1]> ()
    angles = Unsqueeze(angles_t, angle_axis)
    cos = Cos(angles)
    sin = Sin(angles){_turned("q")}{_turned("k")}
    v_turned = Transpose <perm = [0, 2, 1, 3]> (v_heads)
    slots = Range(zero, length, one)
    is_anchor = Less(slots, anchors_c){_held("before", "start")}"""

_MIX = f"""
    both_seen = Concat <axis = 1> (seen, present)
    holders = Concat <axis = 0> (before, places)
    own = Unsqueeze(places, last)
    distance = Sub(own, holders)
    not_after = GreaterOrEqual(distance, zero)
    inside = Less(distance, ring)
    anchored = Less(holders, anchors_c)
    near = Or(inside, anchored)
    filled = GreaterOrEqual(holders, zero)
    causal = And(not_after, near)
    held = And(causal, filled)
    batch_axis = Constant <value_ints: ints = [0]> ()
    flat_seen = Squeeze(both_seen, batch_axis)
    is_seen = Greater(flat_seen, nothing)
    allowed = And(held, is_seen)
    keys_t = Transpose <perm = [0, 1, 3, 2]> (both_keys)
    products = MatMul(q_turned, keys_t)
    root = Sqrt(width_f)
    scaled = Div(products, root)
    never = Constant <value_float: float = -3.0e38> ()
    masked = Where(allowed, scaled, never)
    shares = Softmax <axis = -1> (masked)
    mixed = MatMul(shares, both_values)
    by_time = Transpose <perm = [0, 2, 1, 3]> (mixed)
    flat_shape = Concat <axis = 0> (any_two, last)
    whole = Reshape(by_time, flat_shape)
    present_wide = Unsqueeze(present, last)
    there = Greater(present_wide, nothing)
    y = Where(there, whole, nothing)
    read_out = Add(start, time){_held("after", "read_out")}
    since = Sub(after, start)
    is_new = GreaterOrEqual(since, zero)
    among_new = Add(since, length)
    source = Where(is_new, among_new, slots)
    seen_out = Gather <axis = 1> (both_seen, source)"""


def _decoded(new: str, cache: str) -> str:
    """Text of nodes that put rounded rows behind their cache, and decode both."""
    return f"""{rounded_rows(new)}
    {cache}_codes = Concat <axis = 2> ({cache}s, {new}_codes)
    {cache}_steps = Concat <axis = 2> ({cache}_scales, {new}_scales)
    {cache}_codes_f = Cast <to = 1> ({cache}_codes)
    {cache}_steps_wide = Unsqueeze({cache}_steps, last)
    both_{cache}s = Mul({cache}_codes_f, {cache}_steps_wide)"""


ANCHORED_ATTENTION = f"""
AnchoredAttention <heads, anchors, theta> (q, k, v, present, keys, values, seen, position)
        => (y, keys_out, values_out, seen_out) {{{_SIZES_AND_TURNS}
    both_keys = Concat <axis = 2> (keys, k_turned)
    both_values = Concat <axis = 2> (values, v_turned){_MIX}
    keys_out = Gather <axis = 2> (both_keys, source)
    values_out = Gather <axis = 2> (both_values, source)
}}"""

ANCHORED_ATTENTION_INT8 = f"""
AnchoredAttentionInt8 <heads, anchors, theta>
        (q, k, v, present, keys, values, seen, key_scales, value_scales, position)
        => (y, keys_out, values_out, seen_out, key_scales_out, value_scales_out) {{{_SIZES_AND_TURNS}{ROUNDING}{
    _decoded("k", "key")
}{_decoded("v", "value")}{_MIX}
    keys_out = Gather <axis = 2> (key_codes, source)
    values_out = Gather <axis = 2> (value_codes, source)
    key_scales_out = Gather <axis = 2> (key_steps, source)
    value_scales_out = Gather <axis = 2> (value_steps, source)
}}"""
