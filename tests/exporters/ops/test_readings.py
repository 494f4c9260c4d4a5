"""Every operator says the same in torch, as an ONNX function on a stock runtime, and as a native kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from exporters.formats.integer import CODE_BITS
from exporters.ops.functions import is_nbits
from exporters.ops.signatures import DOMAIN, SIGNATURES


@dataclass(frozen=True)
class Case:
    """One call of an operator; `expected` in the order of its outputs."""

    name: str
    operator: str
    inputs: dict[str, np.ndarray]
    expected: list[np.ndarray]
    attributes: dict[str, float] = field(default_factory=dict)
    tolerance: float | np.ndarray = 1e-6


def floats(*rows: object) -> np.ndarray:
    return np.array(rows, np.float32)


def hexed(text: str, *shape: int) -> np.ndarray:
    """Bytes written as hexadecimal, padded with 0x77 at the end to fill the shape."""
    given = bytes.fromhex(text)
    return np.frombuffer(given + b"\x77" * (math.prod(shape) - len(given)), np.uint8).reshape(shape)


# scale 0.5, codes 9 and 6 less 8: w = [0.5, -1]
FOUR_BITS = {"codes": hexed("69", 1, 1, 8), "scales": np.array([[0.5]], np.float16)}
# scale 2, zero 3, codes 5 = low 1, high 1 and 2 = low 2, high 0: w = [4, -2]
THREE_BITS = {
    "codes": hexed("09", 1, 1, 4), "high": hexed("01", 1, 1, 2), "zeros": hexed("03", 1, 1),
    "scales": np.array([[2]], np.float16),
}  # fmt: skip
# two rows, scales 1 and -1; codes 130 and 0 less 128: w = [[2, -128], [-2, 128]]
EIGHT_BITS = {
    "codes": np.stack([hexed("82 00", 1, 32), hexed("82 00", 1, 32)]),
    "scales": np.array([[1], [-1]], np.float16),
}


# row n of the tile has the code n, row 16 behind it 15, for input 0, and 8 for the other 31
A_TILE = {
    "codes": hexed("".join(f"8{n:x} 88 88 88 " for n in range(16)) + "88" * 192 + "8f" + "88" * 15, 17, 1, 16),
    "scales": np.arange(1, 18, dtype=np.float16)[:, None],
}


def sparse_bytes(text: str, length: int) -> np.ndarray:
    """Bytes of one row written as hexadecimal, zeros behind."""
    given = bytes.fromhex(text)
    return np.frombuffer(given + bytes(length - len(given)), np.uint8).reshape(1, length)


LIF = {"tau": 2.0, "threshold": 1.0, "reset": 0.0}
EMPTY = {"numerator": floats([0]), "denominator": floats([0]), "exponent": floats([-1e38])}
NORMED = {"x": floats([[1, 3], [5, 1]]), "before": floats([1, 1]), "weight": np.array([2, 1], np.float32),
          "bias": np.array([1, 0], np.float32)}  # fmt: skip
STEPS = {"threshold": np.ones(3, np.float32), "amplitude": np.ones(3, np.float32)}
LN2, LN3 = math.log(2), math.log(3)
ROOT2, COS1 = math.sqrt(2), math.cos(1)
# queries ln 3 and 2 ln 3 times the new key's length, which the root of the width divides
TWO_HEADS = {"q": floats([[ROOT2, 0, 2 * ROOT2, 0]]), "k": floats([[LN3, 0]]), "v": floats([[5, 0]])}
PAST = {"keys": floats([[[0, 0], [3, 3], [7, 7]]]), "values": floats([[[1, 0], [3, 3], [7, 7]]])}

PLAIN = {"window": 0, "rotary": 0, "theta": 1.0, "rotate": 0.0, "scale": 0.0, "cap": 0.0}
THREE_SLOTS = {"q": floats([[1, 0]]), "k": floats([[0, 0]]), "v": floats([[5, 0]]),
               "keys": floats([[[50, 0], [LN3, 0], [7, 7]]]), "values": floats([[[9, 9], [1, 0], [7, 7]]]),
               "position": np.array([[2]])}  # fmt: skip

BY_HAND = [
    # u = 0.5; 0.5 + (2 - 0.5) / 2 = 1.25, a spike, reset; 0.5
    Case("one spike", "Lif", {"drive": floats([[1], [2], [1]]), "membrane": floats([0])},
         [floats([[0], [1], [0]]), floats([0.5])], LIF),
    # u = 1 is a spike: the threshold itself counts; 0; -2
    Case("at the threshold", "Lif", {"drive": floats([[2], [0], [-4]]), "membrane": floats([0])},
         [floats([[1], [0], [0]]), floats([-2])], LIF),
    # u = 0.25 + (3 - 0.75) / 4 = 0.8125, a spike, -0.5; -0.5 + 1 / 4 = -0.25; -0.25 + (2.5 - 0.25) / 4 = 0.3125
    Case("reset below zero", "Lif", {"drive": floats([[3], [1], [2.5]]), "membrane": floats([0.25])},
         [floats([[1], [0], [0]]), floats([0.3125])], {"tau": 4.0, "threshold": 0.5, "reset": -0.5}),
    # y = 1; (e^0 1 + 3 e^ln2 4) / (1 + 6) = 25 / 7; sums 1/2 + 8 and 1/2 + 2, over e^ln2
    Case("from nothing", "Wkv", {"decay": floats(-LN2), "first": floats(LN3), "key": floats([[0], [LN2]]),
                                 "value": floats([[1], [4]]), **EMPTY},
         [floats([[1], [25 / 7]]), floats([4.25]), floats([1.25]), floats([LN2])]),
    # y = (2 + 5) / (1 + 1); sums 2/2 + 5 and 1/2 + 1, over e^0
    Case("from a state", "Wkv", {"decay": floats(-LN2), "first": floats(0), "key": floats([[0]]),
                                 "value": floats([[5]]), "numerator": floats([2]), "denominator": floats([1]),
                                 "exponent": floats([0])},
         [floats([[3.5]]), floats([6]), floats([1.5]), floats([0])]),
    # keys of 1000 would overflow without the running maximum: the second outweighs the first, then is outweighed
    Case("large keys", "Wkv", {"decay": floats(-1), "first": floats(0), "key": floats([[-1000], [1000], [-1000]]),
                               "value": floats([[1], [2], [3]]), **EMPTY},
         [floats([[1], [2], [2]]), floats([2]), floats([1]), floats([999])]),
    # 0.5 - 2; 1.5 - 0
    Case("four bits", "QLinear", {"x": floats([1, 2], [3, 0]), **FOUR_BITS}, [floats([-1.5], [1.5])],
         {"K": 2, "N": 1, "bits": 4, "group": 16, "activation_bits": 32, "tile": 0}),
    # 4 - 20
    Case("three bits with zeros", "QLinear", {"x": floats([1, 10]), **THREE_BITS}, [floats([-16])],
         {"K": 2, "N": 1, "bits": 3, "group": 16, "activation_bits": 32, "tile": 0}),
    Case("eight bits", "QLinear", {"x": floats([1, 0], [0, 1]), **EIGHT_BITS}, [floats([2, -2], [-128, 128])],
         {"K": 2, "N": 2, "bits": 8, "group": 32, "activation_bits": 32, "tile": 0}),
    # outputs 0, 1 are the lowest nibbles of words 0, 1: codes 9, 6 for the first input, 8, 11 for the second:
    # times scale 0.5, w = [[0.5, 0], [-1, 1.5]]
    Case("four bits", "EventLinear",
         {"x": floats([2, -4], [0, 1]), "scales": np.array([[0.5, 0.5]], np.float16),
          "codes": np.stack([hexed("09 00 00 00 06", 16), hexed("08 00 00 00 0b", 16)])},
         [floats([1, -8], [0, 1.5])], {"K": 2, "N": 2, "bits": 4, "group": 16, "activation_bits": 32}),
    # the same w; [127, 2.4] is [127, 2], [254, 3] is [254, 4]
    Case("inputs of eight bits", "EventLinear",
         {"x": floats([127, 2.4], [254, 3], [0, 0]), "scales": np.array([[0.5, 0.5]], np.float16),
          "codes": np.stack([hexed("09 00 00 00 06", 16), hexed("08 00 00 00 0b", 16)])},
         [floats([63.5, -124], [127, -248], [0, 0])],
         {"K": 2, "N": 2, "bits": 4, "group": 16, "activation_bits": 8}),
    # steps of 1 and 2: [127, 2.4] is [127, 2], of [254, 3] the 3 is 1.5 steps and goes to the even 2: [254, 4]
    Case("inputs of eight bits", "QLinear", {"x": floats([127, 2.4], [254, 3], [0, 0]), **FOUR_BITS},
         [floats([61.5], [123], [0])], {"K": 2, "N": 1, "bits": 4, "group": 16, "activation_bits": 8, "tile": 0}),
    # 2 (code - 8) scale
    Case("a tile and a row", "QLinear", {"x": floats([2, 1000] + [0] * 30), **A_TILE},
         [floats([2 * (n - 8) * (n + 1) for n in range(16)] + [2 * 7 * 17])],
         {"K": 32, "N": 17, "bits": 4, "group": 32, "activation_bits": 32, "tile": 16}),
    # 3 + 8; 1.5 - 4
    Case("half", "HalfLinear", {"x": floats([3, 4]), "w": np.array([[1, 2], [0.5, -1]], np.float16)},
         [floats([11, -2.5])]),
    Case("eight bits", "QEmbedding", {"tokens": np.array([[1, 0, 1]]), **EIGHT_BITS},
         [floats([[-2, 128], [2, -128], [-2, 128]])], {"K": 2, "N": 2, "bits": 8, "group": 32, "tile": 0}),
    Case("three bits with zeros", "QEmbedding", {"tokens": np.array([[0]]), **THREE_BITS}, [floats([[4, -2]])],
         {"K": 2, "N": 1, "bits": 3, "group": 16, "tile": 0}),
    # (code - 8) scale
    Case("rows of a tile and behind it", "QEmbedding", {"tokens": np.array([[15, 16, 0]]), **A_TILE},
         [floats([[7 * 16] + [0] * 31, [7 * 17] + [0] * 31, [-8] + [0] * 31])],
         {"K": 32, "N": 17, "bits": 4, "group": 32, "tile": 16}),
    # 101 and 010 from the right, then eight bits more that do not count
    Case("two rows", "SignEmbedding", {"tokens": np.array([[1, 0]]), "codes": hexed("fd fa", 2, 1)},
         [floats([[-1, 1, -1], [1, -1, 1]])], {"K": 3, "N": 2}),
    # shares 1/4 and 3/4 of 1 and 5; 1/10 and 9/10
    Case("two heads, one group", "CachedAttention", {**TWO_HEADS, **PAST, "position": np.array([[1]])},
         [floats([[4, 0, 4.6, 0]]), floats([[[0, 0], [LN3, 0], [7, 7]]]), floats([[[1, 0], [5, 0], [7, 7]]])],
         {**PLAIN, "heads": 2}),
    # the second key is one radian from the first; scores cos 1 and 1
    Case("one radian", "CachedAttention",
         {"q": floats([[0, 0], [ROOT2, 0]]), "k": floats([[1, 0], [1, 0]]), "v": floats([[1, 0], [0, 1]]),
          "keys": floats([[[0, 0], [0, 0]]]), "values": floats([[[0, 0], [0, 0]]]), "position": np.array([[0]])},
         [floats([[1, 0], [math.exp(COS1) / (math.exp(COS1) + math.e), math.e / (math.exp(COS1) + math.e)]]),
          floats([[[1, 0], [COS1, math.sin(1)]]]), floats([[[1, 0], [0, 1]]])],
         {**PLAIN, "heads": 1, "theta": 100.0, "rotate": 1.0}),
    # the first slot has left; scores LN3 and 0: shares 3/4 and 1/4 of 1 and 5
    Case("a window of two, scale 1", "CachedAttention", THREE_SLOTS,
         [floats([[2, 0]]), floats([[[50, 0], [LN3, 0], [0, 0]]]), floats([[[9, 9], [1, 0], [5, 0]]])],
         {**PLAIN, "heads": 1, "window": 2, "scale": 1.0}),
    Case("a window of two, scale 1", "CachedAttentionInt8",
         {**THREE_SLOTS, "keys": np.int8([[[[100, 0], [127, 0], [7, 7]]]]),
          "values": np.int8([[[[9, 9], [127, 0], [7, 7]]]]), "key_scales": floats([[1, LN3 / 127, 3]]),
          "value_scales": floats([[1, 1 / 127, 3]])},
         [floats([[2, 0]]), np.int8([[[[100, 0], [127, 0], [0, 0]]]]), np.int8([[[[9, 9], [127, 0], [127, 0]]]]),
          floats([[1, LN3 / 127, 1e-12 / 127]]), floats([[1, 1 / 127, 5 / 127]])],
         {**PLAIN, "heads": 1, "window": 2, "scale": 1.0}),
    # 2 LN3 tanh(LN3^2 / (2 LN3)) = 2 LN3 / 2: shares 3/4 and 1/4
    Case("a cap", "CachedAttention", {**THREE_SLOTS, "q": floats([[LN3, 0]])},
         [floats([[2, 0]]), floats([[[50, 0], [LN3, 0], [0, 0]]]), floats([[[9, 9], [1, 0], [5, 0]]])],
         {**PLAIN, "heads": 1, "window": 2, "scale": 1.0, "cap": 2 * LN3}),
    # a quarter turn of channels 0 and 1 (sine 1, cosine 0), twice as long as it was; channels 2 and 3 stay
    Case("tables for half of a head", "CachedAttention",
         {"q": floats([[1, 0, 3, 0]]), "k": floats([[1, 2, 3, 4]]), "v": floats([[1, 2, 3, 4]]),
          "keys": floats([[[0] * 4] * 2]), "values": floats([[[0] * 4] * 2]), "position": np.array([[0]]),
          "cos": floats([[0]]), "sin": floats([[2]])},
         [floats([[1, 2, 3, 4]]), floats([[[-4, 2, 3, 4], [0] * 4]]), floats([[[1, 2, 3, 4], [0] * 4]])],
         {**PLAIN, "heads": 1, "rotary": 2, "rotate": 1.0}),
    Case("the same in codes", "CachedAttentionInt8",
         {**TWO_HEADS, "keys": np.int8([[[[0, 0], [3, 3], [7, 7]]]]), "values": np.int8([[[[127, 0], [3, 3], [7, 7]]]]),
          "key_scales": floats([[1, 2, 3]]), "value_scales": floats([[1 / 127, 2, 3]]), "position": np.array([[1]])},
         [floats([[4, 0, 4.6, 0]]), np.int8([[[[0, 0], [127, 0], [7, 7]]]]), np.int8([[[[127, 0], [127, 0], [7, 7]]]]),
          floats([[1, LN3 / 127, 3]]), floats([[1 / 127, 5 / 127, 3]])],
         {**PLAIN, "heads": 2}),
    # places 1 and 3 of four (mask 10, rank 4): codes 9 and 6 less 8, scale 0.5: w = [0, 0.5, 0, -1]
    Case("two of four", "SparseLinear", {"x": floats([9, 1, 9, 2]), "codes": sparse_bytes("09 06", 32),
                                         "scales": np.array([[0.5]], np.float16), "patterns": sparse_bytes("04", 12)},
         [floats([-1.5])], {"K": 4, "N": 1, "bits": 4, "group": 128, "kept": 2, "period": 4, "pattern_rows": 1,
                            "float4": 0, "activation_bits": 32, "tile": 0}),
    Case("nine columns", "SignEmbedding", {"tokens": np.array([0]), "codes": hexed("0f 01", 1, 2)},
         [floats([1, 1, 1, 1, -1, -1, -1, -1, 1])], {"K": 9, "N": 1}),
    # rows of mean 2 and 3, deviation 1 and 2: n = [-1, 1] * [2, 1] + [1, 0] = [-1, 1], then [1, -1] likewise = [3, -1]
    # from [1, 1] to [-1, 1] to [3, -1], half and all of the way; then none and a quarter
    Case("two tokens", "ShiftMix2", {**NORMED, "mix_0": floats([[0.5, 1]]), "mix_1": floats([[0, 0.25]])},
         [floats([[0, 1], [1, -1]]), floats([[1, 1], [-1, 0.5]]), floats([3, -1])], {"epsilon": 0.0}),
    Case("two tokens", "ShiftMix3", {**NORMED, "mix_0": floats([[0.5, 1]]), "mix_1": floats([[0, 0.25]]),
                                     "mix_2": floats([[1, 0]])},
         [floats([[0, 1], [1, -1]]), floats([[1, 1], [-1, 0.5]]), floats([[-1, 1], [3, 1]]), floats([3, -1])],
         {"epsilon": 0.0}),
    # as Wkv from nothing; gates 1 / (1 + 1) and 1 / (1 + 1 / 3)
    Case("from nothing", "GatedWkv", {"decay": floats(-LN2), "first": floats(LN3), "key": floats([[0], [LN2]]),
                                      "value": floats([[1], [4]]), "receptance": floats([[0], [LN3]]), **EMPTY},
         [floats([[0.5], [75 / 28]]), floats([4.25]), floats([1.25]), floats([LN2])]),
    # as Lif with one spike
    Case("one spike", "SpikeAdd", {"residual": floats([[10], [20], [-1]]), "drive": floats([[1], [2], [1]]),
                                   "membrane": floats([0])},
         [floats([[10], [21], [-1]]), floats([0.5])], LIF),
    # the same, driven by 2 / 2, 8 / 4 and 4 / 3 * 3 / 4
    Case("one spike", "GatedSpikeAdd", {"residual": floats([[10], [20], [-1]]), "drive": floats([[2], [8], [4 / 3]]),
                                        "membrane": floats([0]), "receptance": floats([[0], [-LN3], [LN3]])},
         [floats([[10], [21], [-1]]), floats([0.5])], LIF),
    Case("both signs", "SquaredRelu", {"x": floats([-2, 0, 3])}, [floats([0, 0, 9])]),
    # u = 0.75; 0.375 + 1 = 1.375 is a spike, to 0; 0.75. The second: 1 is one, the threshold itself counts; -3; -0.5
    Case("hard reset", "IntegrateFire", {"drive": floats([[0.75, 1]], [[1, -3]], [[0.75, 1]]), **STEPS},
         [floats([[0, 1]], [[1, 0]], [[0, 0]])], {"leak": 0.5, "ternary": 0.0, "soft": 0.0}),
    # u = 2.5, a spike, less 1; 1.5, one, 0.5; 0.5 + 0.25; thresholds 1, 1, 0.5: a spike of amplitude 4
    Case("soft reset", "IntegrateFire",
         {"drive": floats([[2.5]], [[0]], [[0.25]]), "threshold": np.array([1, 1, 0.5], np.float32),
          "amplitude": np.array([1, 2, 4], np.float32)},
         [floats([[1]], [[2]], [[4]])], {"leak": 1.0, "ternary": 0.0, "soft": 1.0}),
    # u = -1 is a spike, 0; 0.5; 0.25 + 0.75 = 1. The second: -2, to -1 after; -0.5 - 0.5 = -1; 0.75
    Case("ternary, soft", "IntegrateFire", {"drive": floats([[-1, -2]], [[0.5, -0.5]], [[0.75, 0.75]]), **STEPS},
         [floats([[-1, -1]], [[0, -1]], [[1, 0]])], {"leak": 0.5, "ternary": 1.0, "soft": 1.0}),
    # the same with a reset to 0: -0.5 is no spike; -0.25 + 0.75
    Case("ternary, hard", "IntegrateFire", {"drive": floats([[-1, -2]], [[0.5, -0.5]], [[0.75, 0.75]]), **STEPS},
         [floats([[-1, -1]], [[0, 0]], [[1, 0]])], {"leak": 0.5, "ternary": 1.0, "soft": 0.0}),
]  # fmt: skip


def test_every_operator_has_a_case_by_hand():
    assert {case.operator for case in BY_HAND} == {signature.name for signature in SIGNATURES}


@pytest.mark.parametrize("case", BY_HAND, ids=lambda c: f"{c.operator}: {c.name}")
def test_by_hand(reading, case):
    outputs = reading(case.operator, case.inputs, case.attributes)
    assert len(outputs) == len(case.expected)
    for output, expected in zip(outputs, case.expected, strict=True):
        assert output.shape == expected.shape and output.dtype == expected.dtype
        np.testing.assert_allclose(output, expected, rtol=1e-6, atol=1e-6)


# --- random weights of every width -----------------------------------------------------------------------------------


def bits_of(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes [..., n] as bytes [..., n * bits / 8], least significant bits first."""
    places = (codes[..., None] >> np.arange(bits)) & 1
    return np.packbits(places.reshape(*codes.shape[:-1], -1).astype(np.uint8), axis=-1, bitorder="little")


@dataclass(frozen=True)
class Matrix:
    """Packed tensors as stored, whatever stands in the padding, and the matrix float64 [N, K] that they mean."""

    packed: dict[str, np.ndarray]
    attributes: dict[str, float]
    weight: np.ndarray


def random_matrix(N: int, K: int, bits: int, group: int, zeros: bool) -> Matrix:
    rng = np.random.default_rng([N, K, bits, group, zeros])
    low, high = CODE_BITS[bits]
    groups = -(-K // group)
    codes = rng.integers(0, 2**bits, (N, groups, group))
    scales = (rng.uniform(0.01, 1, (N, groups)) * rng.choice([-1, 1], (N, groups))).astype(np.float16)
    packed = {"codes": bits_of(codes % 2**low, low), "scales": scales}
    offsets = rng.integers(0, 2**bits, (N, groups)) if zeros else np.full((N, groups), 2 ** (bits - 1))
    if high:
        packed["high"] = bits_of(codes >> low, high)
    if zeros:
        packed["zeros"] = offsets.astype(np.uint8)
    weight = ((codes - offsets[..., None]) * scales[..., None].astype(np.float64)).reshape(N, -1)[:, :K]
    return Matrix(packed, {"K": K, "N": N, "bits": bits, "group": group}, weight)


# (K, group): full groups, a last group in part, K smaller than a group; then one scale per row
LAYOUTS = [(64, 32), (70, 32), (129, 64), (5, 16), (200, 128), (100, 128), (70, 96), (300, 320)]
widths = pytest.mark.parametrize("bits", CODE_BITS)
with_zeros = pytest.mark.parametrize("zeros", [False, True], ids=["int", "uint"])
layouts = pytest.mark.parametrize(("K", "group"), LAYOUTS, ids=lambda n: str(n))


def close(y: np.ndarray, x: np.ndarray, weight: np.ndarray) -> bool:
    """Whether y = x W^T to the rounding of a float32 sum."""
    x64 = x.astype(np.float64)
    return bool((np.abs(y - x64 @ weight.T) <= 2e-6 * (np.abs(x64) @ np.abs(weight.T))).all())


@widths
@with_zeros
@layouts
def test_qlinear(reading, bits, zeros, K, group):
    matrix = random_matrix(9, K, bits, group, zeros)
    x = np.random.default_rng(K).normal(0, 1, (1, 3, K)).astype(np.float32)
    (y,) = reading("QLinear", {"x": x, **matrix.packed}, matrix.attributes | {"activation_bits": 32, "tile": 0})
    assert y.shape == (1, 3, 9) and y.dtype == np.float32
    assert close(y, x, matrix.weight)


def rounded(x: np.ndarray, group: int) -> np.ndarray:
    """x [..., K] to 127 steps either way of zero, block by block from the start of each group."""
    result = np.zeros_like(x)
    for start in range(0, x.shape[-1], group):
        for first in range(start, min(start + group, x.shape[-1]), 128):
            block = x[..., first : min(first + 128, start + group)]
            largest = np.abs(block).max(-1, keepdims=True)
            steps = np.rint(block * (np.float32(127) / np.where(largest > 0, largest, 1)))
            result[..., first : first + block.shape[-1]] = steps * (largest / np.float32(127))
    return result


@widths
@with_zeros
@layouts
def test_qlinear_of_rounded_inputs(reading, bits, zeros, K, group):
    matrix = random_matrix(9, K, bits, group, zeros)
    x = np.random.default_rng(K).normal(0, 1, (1, 3, K)).astype(np.float32)
    x[0, 1] *= 100
    x[0, 2, :16] = 0
    (y,) = reading("QLinear", {"x": x, **matrix.packed}, matrix.attributes | {"activation_bits": 8, "tile": 0})
    assert y.shape == (1, 3, 9) and y.dtype == np.float32
    assert close(y, rounded(x, group), matrix.weight) and not close(y, x, matrix.weight)


@widths
@with_zeros
@layouts
def test_qembedding(reading, bits, zeros, K, group):
    matrix = random_matrix(9, K, bits, group, zeros)
    tokens = np.array([[0, 8, 3, 3]])
    (y,) = reading("QEmbedding", {"tokens": tokens, **matrix.packed}, matrix.attributes | {"tile": 0})
    assert y.shape == (1, 4, K) and y.dtype == np.float32
    np.testing.assert_allclose(y, matrix.weight[tokens], rtol=1e-6)


@pytest.mark.parametrize("tokens", [1, 2, 17])
@pytest.mark.parametrize("shape", [(1, 1), (9, 70), (33, 129)], ids=str)
def test_half_linear(reading, shape, tokens):
    rng = np.random.default_rng([*shape, tokens])
    w = rng.normal(0, 1, shape).astype(np.float16)
    x = rng.normal(0, 1, (1, tokens, shape[1])).astype(np.float32)
    (y,) = reading("HalfLinear", {"x": x, "w": w}, {})
    assert y.shape == (1, tokens, shape[0]) and close(y, x, w.astype(np.float64))


@pytest.mark.parametrize("K", [1, 8, 70])
def test_sign_embedding(reading, K):
    rng = np.random.default_rng(K)
    signs = rng.choice([-1, 1], (5, K))
    padded = np.concatenate([signs > 0, rng.integers(0, 2, (5, -K % 8)) > 0], 1)
    tokens = np.array([[4, 0, 2]])
    codes = np.packbits(padded, axis=-1, bitorder="little")
    (y,) = reading("SignEmbedding", {"tokens": tokens, "codes": codes}, {"K": K, "N": 5})
    np.testing.assert_array_equal(y, signs[tokens])


# --- recurrences: one call, chunks and single steps ------------------------------------------------------------------


def lif_inputs(T: int, C: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([T, C])
    return {
        "drive": rng.normal(0.5, 2, (1, T, C)).astype(np.float32),
        "membrane": rng.normal(0, 1, (1, C)).astype("f4"),
    }


def wkv_inputs(T: int, C: int, started: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([T, C, started])
    state = {
        "numerator": rng.normal(0, 1, (1, C)) if started else np.zeros((1, C)),
        "denominator": rng.uniform(0.5, 2, (1, C)) if started else np.zeros((1, C)),
        "exponent": rng.normal(0, 2, (1, C)) if started else np.full((1, C), -1e38),
    }
    inputs = {
        "decay": -np.exp(rng.normal(-1, 1, C)), "first": rng.normal(0, 1, C), "key": rng.normal(0, 3, (1, T, C)),
        "value": rng.normal(0, 1, (1, T, C)), **state,
    }  # fmt: skip
    return {name: array.astype(np.float32) for name, array in inputs.items()}


def lif_by_definition(inputs: dict[str, np.ndarray], tau: float, threshold: float, reset: float) -> list[np.ndarray]:
    v, spikes = inputs["membrane"].astype(np.float64), []
    for x in inputs["drive"].astype(np.float64).swapaxes(0, 1):
        u = v + (x - (v - reset)) / tau
        spikes.append(u >= threshold)
        v = np.where(u >= threshold, reset, u)
    return [np.stack(spikes, 1), v]


def wkv_by_definition(inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y and the two sums without scaling, straight from the sums in the docstring of `wkv`, in extended precision."""
    w, u, k, v, a, b, m = (array.astype(np.longdouble) for array in inputs.values())
    a, b, ys = a * np.exp(m), b * np.exp(m), []
    for t in range(k.shape[1]):
        weights = [np.exp((t - 1 - s) * w + k[:, s]) for s in range(t)] + [np.exp(u + k[:, t])]
        above = a * np.exp(t * w) + sum(weight * v[:, s] for s, weight in enumerate(weights))
        ys.append(above / (b * np.exp(t * w) + sum(weights)))
    T = k.shape[1]
    last = [np.exp((T - 1 - s) * w + k[:, s]) for s in range(T)]
    return (
        np.stack(ys, 1),
        a * np.exp(T * w) + sum(weight * v[:, s] for s, weight in enumerate(last)),
        b * np.exp(T * w) + sum(last),
    )


@pytest.mark.parametrize("C", [1, 5, 64])
@pytest.mark.parametrize("T", [1, 23])
@pytest.mark.parametrize(("tau", "threshold", "reset"), [(2, 1, 0), (3, 0.5, -0.25)])
def test_lif(reading, T, C, tau, threshold, reset):
    inputs = lif_inputs(T, C)
    spikes, after = reading("Lif", inputs, {"tau": float(tau), "threshold": float(threshold), "reset": float(reset)})
    expected_spikes, expected_after = lif_by_definition(inputs, tau, threshold, reset)
    np.testing.assert_array_equal(spikes, expected_spikes)
    np.testing.assert_allclose(after, expected_after, atol=2e-6)
    assert C * T < 20 or 0 < spikes.mean() < 1


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(("T", "C"), [(1, 1), (23, 5), (40, 64)])
def test_wkv(reading, T, C, started):
    inputs = wkv_inputs(T, C, started)
    y, a, b, m = reading("Wkv", inputs, {})
    expected_y, expected_a, expected_b = wkv_by_definition(inputs)
    np.testing.assert_allclose(y, expected_y.astype(np.float64), atol=3e-5)
    scale = np.exp(m.astype(np.longdouble))
    np.testing.assert_allclose((b * scale / expected_b).astype(np.float64), 1, atol=3e-5)
    np.testing.assert_allclose((a * scale / expected_b).astype(np.float64), (expected_a / expected_b), atol=3e-5)


@pytest.mark.parametrize("cuts", [(3,), (1, 2, 3, 4, 5, 6)], ids=["two chunks", "steps"])
def test_chunks_are_the_whole(reading, cuts):
    """Exactly: every step does the same arithmetic, however many come in one call."""
    for operator, inputs, attributes, moving, states in [
        ("Lif", lif_inputs(7, 20), LIF, ["drive"], ["membrane"]),
        ("Wkv", wkv_inputs(7, 20, True), {}, ["key", "value"], ["numerator", "denominator", "exponent"]),
    ]:
        whole = reading(operator, inputs, attributes)
        parts, state = [], {name: inputs[name] for name in states}
        for start, stop in zip((0, *cuts), (*cuts, 7), strict=True):
            chunk = {name: inputs[name][:, start:stop] for name in moving}
            y, *after = reading(operator, {**inputs, **state, **chunk}, attributes)
            parts.append(y)
            state = dict(zip(states, after, strict=True))
        np.testing.assert_array_equal(np.concatenate(parts, 1), whole[0])
        for name, after in zip(states, whole[1:], strict=True):
            np.testing.assert_array_equal(state[name], after)


# --- which reading runs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", BY_HAND, ids=lambda c: f"{c.operator}: {c.name}")
def test_the_kernel_wins_where_it_is_registered(one_node_model, native_path, tmp_path, case):
    """One file serves both: a stock runtime inlines the function, one with our library keeps the node."""
    model = one_node_model(case.operator, case.inputs, case.attributes).SerializeToString()
    kept = {}
    for library in (None, native_path):
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        if library:
            options.register_custom_ops_library(library)
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
        kept[library] = [node.op_type for node in nodes if node.domain == DOMAIN]
    assert kept == {None: [], native_path: [case.operator]}


@pytest.mark.parametrize(
    ("bits", "group", "zeros", "nbits"),
    [(4, 64, False, True), (4, 256, False, True), (4, 320, False, False), (4, 64, True, False), (8, 64, False, False),
     (2, 32, True, False), (3, 96, False, False)],
)  # fmt: skip
def test_layouts_that_matmulnbits_serves_as_they_are(bits, group, zeros, nbits):
    assert is_nbits(bits, group, zeros) == nbits
