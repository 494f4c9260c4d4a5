"""The ONNX function body of products with ternary matrices, in standard operators."""

from __future__ import annotations

from exporters.formats.trits import DIGITS, TILE_ROWS, WORD_BYTES

_DIGIT = """
    tripled_{i} = Mul(left_{i}, three)
    digit_{i} = Div(tripled_{i}, whole)
    left_{next} = Mod(tripled_{i}, whole)"""

TERNARY_LINEAR = f"""
TernaryLinear <K, N> (x, codes, scale) => (y) {{
    last = Constant <value_ints: ints = [-1]> ()
    zero = Constant <value_ints: ints = [0]> ()
    three = Constant <value: tensor = int32[1] {{3}}> ()
    whole = Constant <value: tensor = int32[1] {{256}}> ()
    rows_and_bytes = Constant <value_ints: ints = [{TILE_ROWS}, {WORD_BYTES}]> ()
    tiles_and_words = Shape <start = 0, end = 2> (codes)
    split = Concat <axis = 0> (tiles_and_words, rows_and_bytes)
    numbers = Cast <to = 6> (codes)
    left_0 = Reshape(numbers, split)\
{"".join(_DIGIT.format(i=i, next=i + 1) for i in range(DIGITS))}
    axis = Constant <value_ints: ints = [3]> ()\
{
    "".join(
        f'''
    wide_{i} = Unsqueeze(digit_{i}, axis)'''
        for i in range(DIGITS)
    )
}
    digits = Concat <axis = 3> ({", ".join(f"wide_{i}" for i in range(DIGITS))})
    by_row = Transpose <perm = [0, 2, 1, 3, 4]> (digits)
    tiles = Shape <start = 0, end = 1> (codes)
    words = Shape <start = 1, end = 2> (codes)
    of_tile = Constant <value_ints: ints = [{TILE_ROWS}]> ()
    of_word = Constant <value_ints: ints = [{WORD_BYTES * DIGITS}]> ()
    all_rows = Mul(tiles, of_tile)
    all_inputs = Mul(words, of_word)
    matrix_shape = Concat <axis = 0> (all_rows, all_inputs)
    padded = Reshape(by_row, matrix_shape)
    K_c = Constant <value_int: int = @K> ()
    N_c = Constant <value_int: int = @N> ()
    K_1 = Reshape(K_c, last)
    N_1 = Reshape(N_c, last)
    ends = Concat <axis = 0> (N_1, K_1)
    starts = Constant <value_ints: ints = [0, 0]> ()
    cut = Slice(padded, starts, ends)
    floats = Cast <to = 1> (cut)
    one = Constant <value_float: float = 1.0> ()
    steps_w = Sub(floats, one)
    weight = Mul(steps_w, scale)
    weight_t = Transpose <perm = [1, 0]> (weight)
    size = Abs(x)
    largest = ReduceMax <keepdims = 1> (size, last)
    least = Constant <value_float: float = 1.0e-5> ()
    most = Max(largest, least)
    range = Constant <value_float: float = 127.0> ()
    low = Constant <value_float: float = -128.0> ()
    per_unit = Div(range, most)
    in_steps = Mul(x, per_unit)
    nearest = Round(in_steps)
    above = Max(nearest, low)
    clipped = Min(above, range)
    rounded = Div(clipped, per_unit)
    y = MatMul(rounded, weight_t)
}}"""
