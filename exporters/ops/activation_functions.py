"""Activations of 8 bits as text of an ONNX body: the rounding that products with integer sums do."""

from __future__ import annotations

ACTIVATION_GROUP = 128
"""Inputs that share a step at most: as many as a group of weights, or this many from the group's start."""

TINIEST = 1e-36
"""A block whose largest is no more than this rounds to 0, because 127 over it may be infinite."""


def rounding_text(source: str, target: str, group: int) -> str:
    """Text of nodes that round `source` to `target` as exporters.ops.activations does.

    No Pad with axes has constant pads: ONNX Runtime 1.24 misses the axes when it infers shapes inside a function.
    """
    length = min(group, ACTIVATION_GROUP)
    padded = -(-group // length) * length
    text = f"""
    a_zero = Constant <value_ints: ints = [0]> ()
    a_last = Constant <value_ints: ints = [-1]> ()
    a_group = Constant <value_ints: ints = [{group}]> ()
    a_length = Constant <value_ints: ints = [{length}]> ()
    a_inputs = Shape <start = -1> ({source})
    a_lead = Shape <start = 0, end = -1> ({source})
    a_minus = Neg(a_inputs)
    a_missing = Mod(a_minus, a_group)
    a_pads = Concat <axis = 0> (a_zero, a_missing)
    a_whole = Pad({source}, a_pads, , a_last)
    a_blocks_shape = Concat <axis = 0> (a_lead, a_last, a_length)"""
    if padded == group:
        text += "\n    a_blocks = Reshape(a_whole, a_blocks_shape)"
    else:
        text += f"""
    a_groups_shape = Concat <axis = 0> (a_lead, a_last, a_group)
    a_groups = Reshape(a_whole, a_groups_shape)
    a_more = Constant <value_ints: ints = [{padded - group}]> ()
    a_fill = Concat <axis = 0> (a_zero, a_more)
    a_filled = Pad(a_groups, a_fill, , a_last)
    a_blocks = Reshape(a_filled, a_blocks_shape)"""
    text += """
    a_size = Abs(a_blocks)
    a_largest = ReduceMax <keepdims = 1> (a_size, a_last)
    a_nothing = Constant <value_float: float = 0.0> ()
    a_tiniest = Constant <value_float: float = 1e-36> ()
    a_steps = Constant <value_float: float = 127.0> ()
    a_some = Greater(a_largest, a_tiniest)
    a_ratio = Div(a_steps, a_largest)
    a_inverse = Where(a_some, a_ratio, a_nothing)
    a_scaled = Mul(a_blocks, a_inverse)
    a_integers = Round(a_scaled)
    a_step = Div(a_largest, a_steps)
    a_rounded = Mul(a_integers, a_step)"""
    back = "a_rounded"
    if padded != group:
        text += f"""
    a_padded = Constant <value_ints: ints = [{padded}]> ()
    a_wide_shape = Concat <axis = 0> (a_lead, a_last, a_padded)
    a_wide = Reshape(a_rounded, a_wide_shape)
    a_narrow = Slice(a_wide, a_zero, a_group, a_last)"""
        back = "a_narrow"
    return (
        text
        + f"""
    a_flat_shape = Concat <axis = 0> (a_lead, a_last)
    a_flat = Reshape({back}, a_flat_shape)
    {target} = Slice(a_flat, a_zero, a_inputs, a_last)"""
    )
