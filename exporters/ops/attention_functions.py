"""ONNX function bodies of attention over a key-value cache, in standard operators."""

from __future__ import annotations

SMALLEST_SCALE = 1e-12
"""Keeps the scale of an all-zero key from being zero."""


def _rotation(x: str) -> str:
    return f"""
    {x}_first, {x}_second = Split <axis = -1, num_outputs = 2> ({x}_heads)
    {x}_fc = Mul({x}_first, cos)
    {x}_ss = Mul({x}_second, sin)
    {x}_low = Sub({x}_fc, {x}_ss)
    {x}_sc = Mul({x}_second, cos)
    {x}_fs = Mul({x}_first, sin)
    {x}_high = Add({x}_sc, {x}_fs)
    {x}_turned_t = Concat <axis = -1> ({x}_low, {x}_high)
    {x}_turned = Transpose <perm = [0, 2, 1, 3]> ({x}_turned_t)"""


_PREPARE = f"""
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
    positions = Add(position, steps)
    pairs = Range(zero, width, two)
    pairs_f = Cast <to = 1> (pairs)
    width_f = Cast <to = 1> (width)
    exponents = Div(pairs_f, width_f)
    theta_c = Constant <value_float: float = @theta> ()
    periods = Pow(theta_c, exponents)
    rotate_c = Constant <value_float: float = @rotate> ()
    inverse = Div(rotate_c, periods)
    positions_f = Cast <to = 1> (positions)
    positions_wide = Unsqueeze(positions_f, last)
    angles_t = Mul(positions_wide, inverse)
    angle_axis = Constant <value_ints: ints = [2]> ()
    angles = Unsqueeze(angles_t, angle_axis)
    cos = Cos(angles)
    sin = Sin(angles){_rotation("q")}{_rotation("k")}
    v_turned = Transpose <perm = [0, 2, 1, 3]> (v_heads)
    slots = Range(zero, length, one)
    start = Squeeze(position)
    since = Sub(slots, start)
    not_before = GreaterOrEqual(since, zero)
    not_after = Less(since, time)
    is_new = And(not_before, not_after)
    among_new = Add(since, length)
    source = Where(is_new, among_new, slots)"""

_ATTEND = """
    group_shape = Concat <axis = 0> (any_zero, groups_1, last, width_1)
    q_grouped = Reshape(q_turned, group_shape)
    keys_t = Transpose <perm = [0, 1, 3, 2]> (all_keys)
    products = MatMul(q_grouped, keys_t)
    root = Sqrt(width_f)
    scaled = Div(products, root)
    score_shape = Concat <axis = 0> (any_two, last, time_1, length_1)
    scores = Reshape(scaled, score_shape)
    own = Unsqueeze(positions, last)
    own_wide_axis = Constant <value_ints: ints = [1, 2]> ()
    own_wide = Unsqueeze(own, own_wide_axis)
    seen = LessOrEqual(slots, own_wide)
    never = Constant <value_float: float = -3.0e38> ()
    masked = Where(seen, scores, never)
    shares = Softmax <axis = -1> (masked)
    share_shape = Concat <axis = 0> (any_two, last, length_1)
    shares_grouped = Reshape(shares, share_shape)
    mixed = MatMul(shares_grouped, all_values)
    head_count = Constant <value_int: int = @heads> ()
    head_count_1 = Reshape(head_count, last)
    head_shape = Concat <axis = 0> (any_zero, head_count_1, time_1, width_1)
    by_head = Reshape(mixed, head_shape)
    by_time = Transpose <perm = [0, 2, 1, 3]> (by_head)
    flat_shape = Concat <axis = 0> (any_two, last)
    y = Reshape(by_time, flat_shape)"""

CACHED_ATTENTION = f"""
CachedAttention <heads, theta, rotate> (q, k, v, keys, values, position) => (y, keys_out, values_out) {{{_PREPARE}
    both_keys = Concat <axis = 2> (keys, k_turned)
    keys_out = Gather <axis = 2> (both_keys, source)
    both_values = Concat <axis = 2> (values, v_turned)
    values_out = Gather <axis = 2> (both_values, source)
    all_keys = Identity(keys_out)
    all_values = Identity(values_out){_ATTEND}
}}"""


def _rounded(new: str, cache: str) -> str:
    """Text of nodes that round new keys or values and put them into their cache, and decode the whole of it."""
    singular = cache.removesuffix("s")
    return f"""
    {new}_abs = Abs({new}_turned)
    {new}_most = ReduceMax <keepdims = 0> ({new}_abs, last)
    {new}_positive = Max({new}_most, smallest)
    {new}_scales = Div({new}_positive, largest_code)
    {new}_scales_wide = Unsqueeze({new}_scales, last)
    {new}_ratio = Div({new}_turned, {new}_scales_wide)
    {new}_round = Round({new}_ratio)
    {new}_codes = Cast <to = 3> ({new}_round)
    both_{cache} = Concat <axis = 2> ({cache}, {new}_codes)
    {cache}_out = Gather <axis = 2> (both_{cache}, source)
    both_{singular}_scales = Concat <axis = 2> ({singular}_scales, {new}_scales)
    {singular}_scales_out = Gather <axis = 2> (both_{singular}_scales, source)
    {cache}_codes_f = Cast <to = 1> ({cache}_out)
    {cache}_scales_wide = Unsqueeze({singular}_scales_out, last)
    all_{cache} = Mul({cache}_codes_f, {cache}_scales_wide)"""


CACHED_ATTENTION_INT8 = f"""
CachedAttentionInt8 <heads, theta, rotate> (q, k, v, keys, values, key_scales, value_scales, position)
        => (y, keys_out, values_out, key_scales_out, value_scales_out) {{{_PREPARE}
    smallest = Constant <value_float: float = {SMALLEST_SCALE}> ()
    largest_code = Constant <value_float: float = 127.0> (){_rounded("k", "keys")}{_rounded("v", "values")}{_ATTEND}
}}"""
