"""Texts of the ONNX function bodies of the fused operators: standard operators, LIF and WKV stepped by Scan."""

from __future__ import annotations

LIF_STEPS = """
    tau_c = Constant <value_float: float = @tau> ()
    threshold_c = Constant <value_float: float = @threshold> ()
    reset_c = Constant <value_float: float = @reset> ()
    membrane_out, spikes = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
        body = step (float[n, c] v, float[n, c] x) => (float[n, c] v_next, float[n, c] s) {
            above_reset = Sub(v, reset_c)
            toward = Sub(x, above_reset)
            change = Div(toward, tau_c)
            u = Add(v, change)
            fires = GreaterOrEqual(u, threshold_c)
            s = Cast <to = 1> (fires)
            v_next = Where(fires, reset_c, u)
        }> (membrane, current)"""
"""current [n, T, c] and membrane [n, c] to spikes and membrane_out."""


def _added_up(old: str, new: str, largest: str, kept: str, share: str, names: tuple[str, str, str, str, str]) -> str:
    """Text of nodes that add value v with weight exp(new) to sums a, b with weight exp(old), all over exp(largest)."""
    kept_a, added, above, kept_b, below = names
    return f"""{kept}_exponent = Sub({old}, {largest})
            {kept} = Exp({kept}_exponent)
            {share}_exponent = Sub({new}, {largest})
            {share} = Exp({share}_exponent)
            {kept_a} = Mul({kept}, a)
            {added} = Mul({share}, v)
            {above} = Add({kept_a}, {added})
            {kept_b} = Mul({kept}, b)
            {below} = Add({kept_b}, {share})"""


WKV_STEPS = f"""
    numerator_out, denominator_out, exponent_out, y = Scan <num_scan_inputs = 2, scan_input_axes = [1, 1],
        scan_output_axes = [1],
        body = step (float[n, c] a, float[n, c] b, float[n, c] m, float[n, c] k, float[n, c] v)
                => (float[n, c] a_next, float[n, c] b_next, float[n, c] m_next, float[n, c] out) {{
            boosted = Add(first, k)
            top = Max(m, boosted)
            {_added_up("m", "boosted", "top", "past", "now", ("past_a", "now_v", "above", "past_b", "below"))}
            out = Div(above, below)
            decayed = Add(m, decay)
            m_next = Max(decayed, k)
            {_added_up("decayed", "k", "m_next", "keep", "add", ("kept_a", "added", "a_next", "kept_b", "b_next"))}
        }}> (numerator, denominator, exponent, key, value)"""
"""key, value [n, T, c] and the three states [n, c] to y and the states after."""


def _shift_mix(count: int) -> str:
    """Text of ShiftMix2 or ShiftMix3."""
    mixes = range(count)
    text = f"""
ShiftMix{count} <epsilon> (x, before, weight, bias, {", ".join(f"mix_{i}" for i in mixes)})
        => ({", ".join(f"y_{i}" for i in mixes)}, before_out) {{
    zero = Constant <value_ints: ints = [0]> ()
    one = Constant <value_ints: ints = [1]> ()
    last = Constant <value_ints: ints = [-1]> ()
    all = Constant <value_ints: ints = [9223372036854775807]> ()
    n = LayerNormalization <axis = -1, epsilon: float = @epsilon> (x, weight, bias)
    row_before = Unsqueeze(before, one)
    rows = Concat <axis = 1> (row_before, n)
    old = Slice(rows, zero, last, one)
    row_after = Slice(rows, last, all, one)
    before_out = Squeeze(row_after, one)
    change = Sub(n, old)"""
    for i in mixes:
        text += f"\n    part_{i} = Mul(change, mix_{i})\n    y_{i} = Add(old, part_{i})"
    return text + "\n}"


FUSION_BODIES = {
    "RmsNorm": """
RmsNorm <epsilon> (x, weight) => (y) {
    last = Constant <value_ints: ints = [-1]> ()
    epsilon_c = Constant <value_float: float = @epsilon> ()
    squares = Mul(x, x)
    mean = ReduceMean <keepdims = 1> (squares, last)
    above_zero = Add(mean, epsilon_c)
    root = Sqrt(above_zero)
    normed = Div(x, root)
    y = Mul(normed, weight)
}""",
    "ShiftMix2": _shift_mix(2),
    "ShiftMix3": _shift_mix(3),
    "GatedWkv": f"""
GatedWkv (decay, first, key, value, receptance, numerator, denominator, exponent)
        => (gated, numerator_out, denominator_out, exponent_out) {{
    {WKV_STEPS}
    gate = Sigmoid(receptance)
    gated = Mul(gate, y)
}}""",
    "SpikeAdd": f"""
SpikeAdd <tau, threshold, reset> (residual, current, membrane) => (sum, membrane_out) {{
    {LIF_STEPS}
    sum = Add(residual, spikes)
}}""",
    "GatedSpikeAdd": f"""
GatedSpikeAdd <tau, threshold, reset> (residual, ungated, membrane, receptance) => (sum, membrane_out) {{
    gate = Sigmoid(receptance)
    current = Mul(gate, ungated)
    {LIF_STEPS}
    sum = Add(residual, spikes)
}}""",
    "SquaredRelu": """
SquaredRelu (x) => (y) {
    above = Relu(x)
    y = Mul(above, above)
}""",
}
"""Text of the body by operator."""
