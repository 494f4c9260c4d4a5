"""The ONNX function body of integrate-and-fire over spike steps, in standard operators."""

from __future__ import annotations

INTEGRATE_FIRE = """
IntegrateFire <leak, ternary, soft> (current, threshold, amplitude) => (spikes) {
    leak_c = Constant <value_float: float = @leak> ()
    ternary_c = Constant <value_float: float = @ternary> ()
    soft_c = Constant <value_float: float = @soft> ()
    rest_shape = Shape <start = 1> (current)
    rest = ConstantOfShape <value: tensor = float[1] {0.0}> (rest_shape)
    membrane, spikes = Scan <num_scan_inputs = 3,
        body = step (float[r, c] v, float[r, c] x, float theta, float a) => (float[r, c] v_next, float[r, c] out) {
            kept = Mul(leak_c, v)
            u = Add(kept, x)
            above = GreaterOrEqual(u, theta)
            above_f = Cast <to = 1> (above)
            low = Neg(theta)
            below = LessOrEqual(u, low)
            below_f = Cast <to = 1> (below)
            below_t = Mul(ternary_c, below_f)
            code = Sub(above_f, below_t)
            out = Mul(a, code)
            taken = Mul(theta, code)
            remaining = Sub(u, taken)
            soft_v = Mul(soft_c, remaining)
            fires = Cast <to = 9> (code)
            v_next = Where(fires, soft_v, u)
        }> (rest, current, threshold, amplitude)
}"""
