"""ONNX function bodies of the recurrences with parameters per channel, in standard operators, stepped by Scan."""

from __future__ import annotations

_EVERY_STEP = """
    {name}_each = Expand({name}, every)"""

PLIF = f"""
Plif <low, high, reset, soft, membranes> (current, decay, gain, threshold, drop, membrane) => (y, membrane_out) {{
    low_c = Constant <value_float: float = @low> ()
    high_c = Constant <value_float: float = @high> ()
    reset_c = Constant <value_float: float = @reset> ()
    soft_c = Constant <value_float: float = @soft> ()
    membranes_c = Constant <value_float: float = @membranes> ()
    soft_b = Cast <to = 9> (soft_c)
    membranes_b = Cast <to = 9> (membranes_c)
    every = Shape (current){"".join(_EVERY_STEP.format(name=n) for n in ("decay", "gain", "threshold", "drop"))}
    membrane_out, y = Scan <num_scan_inputs = 5, scan_input_axes = [1, 1, 1, 1, 1], scan_output_axes = [1],
        body = step (float[n, c] v, float[n, c] x, float[n, c] kept, float[n, c] scaled, float[n, c] theta,
                float[n, c] taken) => (float[n, c] v_next, float[n, c] out) {{
            left = Mul(kept, v)
            added = Mul(scaled, x)
            whole = Add(left, added)
            above_low = Max(whole, low_c)
            u = Min(above_low, high_c)
            fires = GreaterOrEqual(u, theta)
            s = Cast <to = 1> (fires)
            less = Sub(u, taken)
            after = Where(soft_b, less, reset_c)
            v_next = Where(fires, after, u)
            out = Where(membranes_b, v_next, s)
        }}> (membrane, current, decay_each, gain_each, threshold_each, drop_each)
}}"""

LINEAR_RECURRENCE = f"""
LinearRecurrence (decay, current, state) => (y, state_out) {{
    every = Shape (current){_EVERY_STEP.format(name="decay")}
    state_out, y = Scan <num_scan_inputs = 2, scan_input_axes = [1, 1], scan_output_axes = [1],
        body = step (float[n, c] h, float[n, c] kept, float[n, c] x) => (float[n, c] h_next, float[n, c] out) {{
            left = Mul(kept, h)
            h_next = Add(left, x)
            out = Identity(h_next)
        }}> (state, decay_each, current)
}}"""

_HEADS = """
    {name}_heads = Reshape({name}, by_state)"""

DELTA_RULE = f"""
DeltaRule (query, decay, key, value, removed, rate, state) => (y, state_out) {{
    same = Constant <value_ints: ints = [0, 0]> ()
    rest = Constant <value_ints: ints = [-1]> ()
    states_1 = Shape <start = 1, end = 2> (state)
    width_1 = Shape <start = 3, end = 4> (state)
    by_state = Concat <axis = 0> (same, states_1, rest)
    by_head = Concat <axis = 0> (same, states_1, rest, width_1)
    query_heads = Reshape(query, by_head)\
{"".join(_HEADS.format(name=n) for n in ("decay", "key", "value", "removed", "rate"))}
    column = Constant <value_ints: ints = [3]> ()
    row = Constant <value_ints: ints = [2]> ()
    state_out, mixed = Scan <num_scan_inputs = 6, scan_input_axes = [1, 1, 1, 1, 1, 1], scan_output_axes = [1],
        body = step (float[n, g, d, d] S, float[n, g, m, d] q, float[n, g, d] w, float[n, g, d] k, float[n, g, d] v,
                float[n, g, d] a, float[n, g, d] r) => (float[n, g, d, d] S_next, float[n, g, m, d] out) {{
            a_column = Unsqueeze(a, column)
            gone = MatMul(S, a_column)
            w_row = Unsqueeze(w, row)
            kept = Mul(S, w_row)
            r_row = Unsqueeze(r, row)
            moved = Mul(gone, r_row)
            v_column = Unsqueeze(v, column)
            k_row = Unsqueeze(k, row)
            added = Mul(v_column, k_row)
            both = Add(kept, moved)
            S_next = Add(both, added)
            turned = Transpose <perm = [0, 1, 3, 2]> (S_next)
            out = MatMul(q, turned)
        }}> (state, query_heads, decay_heads, key_heads, value_heads, removed_heads, rate_heads)
    flat = Shape (query)
    y = Reshape(mixed, flat)
}}"""

CHANNEL_BODIES = {"Plif": PLIF, "LinearRecurrence": LINEAR_RECURRENCE, "DeltaRule": DELTA_RULE}
"""Text of the body by operator."""
