"""Calls of every operator with outputs worked out by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np


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
# the steps of codes 1 and 15 are -7 and 127; times scale 0.5, w = [-3.5, 63.5]
TABLE_OF_16 = {
    "codes": hexed("f1", 1, 1, 8), "scales": np.array([[0.5]], np.float16),
    "steps": np.array([-128, -7, *range(13), 127], np.int8),
}  # fmt: skip
# the steps of codes 5 and 2 are 7 and -3; times scale 2, w = [14, -6]
TABLE_OF_8 = {
    "codes": hexed("09", 1, 1, 4), "high": hexed("01", 1, 1, 2), "scales": np.array([[2]], np.float16),
    "steps": np.array([-40, -20, -3, 0, 1, 7, 20, 40], np.int8),
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
ROOT12, ROOT50 = math.sqrt(12.5), math.sqrt(50)
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
    Case("one spike", "Lif", {"current": floats([[1], [2], [1]]), "membrane": floats([0])},
         [floats([[0], [1], [0]]), floats([0.5])], LIF),
    # u = 1 is a spike: the threshold itself counts; 0; -2
    Case("at the threshold", "Lif", {"current": floats([[2], [0], [-4]]), "membrane": floats([0])},
         [floats([[1], [0], [0]]), floats([-2])], LIF),
    # u = 0.25 + (3 - 0.75) / 4 = 0.8125, a spike, -0.5; -0.5 + 1 / 4 = -0.25; -0.25 + (2.5 - 0.25) / 4 = 0.3125
    Case("reset below zero", "Lif", {"current": floats([[3], [1], [2.5]]), "membrane": floats([0.25])},
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
    # -7 + 6350
    Case("sixteen steps", "TableLinear", {"x": floats([2, 100]), **TABLE_OF_16}, [floats([6343])],
         {"K": 2, "N": 1, "bits": 4, "group": 16, "activation_bits": 32, "tile": 0}),
    # [127, 2.4] is [127, 2]: -444.5 + 127
    Case("inputs of eight bits", "TableLinear", {"x": floats([127, 2.4]), **TABLE_OF_16}, [floats([-317.5])],
         {"K": 2, "N": 1, "bits": 4, "group": 16, "activation_bits": 8, "tile": 0}),
    # 14 - 60
    Case("eight steps", "TableLinear", {"x": floats([1, 10]), **TABLE_OF_8}, [floats([-46])],
         {"K": 2, "N": 1, "bits": 3, "group": 16, "activation_bits": 32, "tile": 0}),
    Case("eight steps", "TableEmbedding", {"tokens": np.array([[0]]), **TABLE_OF_8}, [floats([[14, -6]])],
         {"K": 2, "N": 1, "bits": 3, "group": 16, "tile": 0}),
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
    # 2049 lies between 2048 and 2050: to the even one; half of it and of 6e-8; 1e9 is infinite
    Case("rounded to halves", "CachedAttentionHalf",
         {"q": floats([[0, 0]]), "k": floats([[2049, 2051]]), "v": floats([[2049, 1e9]]),
          "keys": np.float16([[[[0, 0], [7, 7]]]]), "values": np.float16([[[[6e-8, 0], [7, 7]]]]),
          "position": np.array([[1]])},
         [floats([[1024, np.inf]]), np.float16([[[[0, 0], [2048, 2052]]]]),
          np.float16([[[[6e-8, 0], [2048, np.inf]]]])],
         {**PLAIN, "heads": 1}),
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
         {**PLAIN, "heads": 1, "window": 2, "scale": 1.0, "hadamard": 0}),
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
         {**PLAIN, "heads": 2, "hadamard": 0}),
    # places 1 and 3 of four (mask 10, rank 4): codes 9 and 6 less 8, scale 0.5: w = [0, 0.5, 0, -1]
    Case("two of four", "SparseLinear", {"x": floats([9, 1, 9, 2]), "codes": sparse_bytes("09 06", 32),
                                         "scales": np.array([[0.5]], np.float16), "patterns": sparse_bytes("04", 12)},
         [floats([-1.5])], {"K": 4, "N": 1, "bits": 4, "group": 128, "kept": 2, "period": 4, "pattern_rows": 1,
                            "float4": 0, "activation_bits": 32, "tile": 1}),
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
    Case("one spike", "SpikeAdd", {"residual": floats([[10], [20], [-1]]), "current": floats([[1], [2], [1]]),
                                   "membrane": floats([0])},
         [floats([[10], [21], [-1]]), floats([0.5])], LIF),
    # the same, driven by 2 / 2, 8 / 4 and 4 / 3 * 3 / 4
    Case("one spike", "GatedSpikeAdd", {"residual": floats([[10], [20], [-1]]), "current": floats([[2], [8], [4 / 3]]),
                                        "membrane": floats([0]), "receptance": floats([[0], [-LN3], [LN3]])},
         [floats([[10], [21], [-1]]), floats([0.5])], LIF),
    # the mean square is 25 / 2, then 100 / 2
    Case("by the root of the mean square", "RmsNorm",
         {"x": floats([3, 4], [6, -8]), "weight": np.array([1, 2], np.float32)},
         [floats([3 / ROOT12, 8 / ROOT12], [6 / ROOT50, -16 / ROOT50])], {"epsilon": 0.0}),
    Case("epsilon under the root", "RmsNorm", {"x": floats([1, 1]), "weight": np.array([1, 4], np.float32)},
         [floats([0.5, 2])], {"epsilon": 3.0}),
    Case("both signs", "SquaredRelu", {"x": floats([-2, 0, 3])}, [floats([0, 0, 9])]),
    # u = 0.75; 0.375 + 1 = 1.375 is a spike, to 0; 0.75. The second: 1 is one, the threshold itself counts; -3; -0.5
    Case("hard reset", "IntegrateFire", {"current": floats([[0.75, 1]], [[1, -3]], [[0.75, 1]]), **STEPS},
         [floats([[0, 1]], [[1, 0]], [[0, 0]])], {"leak": 0.5, "ternary": 0.0, "soft": 0.0}),
    # u = 2.5, a spike, less 1; 1.5, one, 0.5; 0.5 + 0.25; thresholds 1, 1, 0.5: a spike of amplitude 4
    Case("soft reset", "IntegrateFire",
         {"current": floats([[2.5]], [[0]], [[0.25]]), "threshold": np.array([1, 1, 0.5], np.float32),
          "amplitude": np.array([1, 2, 4], np.float32)},
         [floats([[1]], [[2]], [[4]])], {"leak": 1.0, "ternary": 0.0, "soft": 1.0}),
    # u = -1 is a spike, 0; 0.5; 0.25 + 0.75 = 1. The second: -2, to -1 after; -0.5 - 0.5 = -1; 0.75
    Case("ternary, soft", "IntegrateFire", {"current": floats([[-1, -2]], [[0.5, -0.5]], [[0.75, 0.75]]), **STEPS},
         [floats([[-1, -1]], [[0, -1]], [[1, 0]])], {"leak": 0.5, "ternary": 1.0, "soft": 1.0}),
    # the same with a reset to 0: -0.5 is no spike; -0.25 + 0.75
    Case("ternary, hard", "IntegrateFire", {"current": floats([[-1, -2]], [[0.5, -0.5]], [[0.75, 0.75]]), **STEPS},
         [floats([[-1, -1]], [[0, 0]], [[1, 0]])], {"leak": 0.5, "ternary": 1.0, "soft": 0.0}),
    # u = 0.5 * 3 + 2 = 3.5, clipped to 3: a spike, reset to 0; u = -5, clipped to -3; u = -1.5 + 2.5 = 1, a spike
    Case("hard, clipped", "Plif", {"current": floats([[2], [-5], [2.5]]), "decay": floats(0.5), "gain": floats(1),
                                   "threshold": floats(1), "drop": floats(0), "membrane": floats([3])},
         [floats([[1], [0], [1]]), floats([0])],
         {"low": -3.0, "high": 3.0, "reset": 0.0, "soft": 0.0, "membranes": 0.0}),
    # channel 0: u = 0.5 * 2 + 0.5 * 4 = 3, less 1: 2; channel 1: u = 0.25 * 4 + 0.75 * 4 = 4, below 5
    Case("soft, membranes", "Plif", {"current": floats([[4, 4]]), "decay": floats(0.5, 0.25), "gain": floats(0.5, 0.75),
                                     "threshold": floats(3, 5), "drop": floats(1, 5), "membrane": floats([2, 4])},
         [floats([[2, 4]]), floats([2, 4])],
         {"low": -9.0, "high": 9.0, "reset": 7.0, "soft": 1.0, "membranes": 1.0}),
    # 0.5 * 4 + 1 = 3, then 0.25 * 3 + 1 = 1.75
    Case("a decay for every step", "LinearRecurrence",
         {"decay": floats([[0.5], [0.25]]), "current": floats([[1], [1]]), "state": floats([4])},
         [floats([[3], [1.75]]), floats([1.75])]),
    # S = [[1, 2], [3, 4]]; S a = (2, 4); S diag(1, 2) = [[1, 4], [3, 8]], + (2, 4) (1, 0)^T, + (1, -1) (0, 3)^T:
    # [[3, 7], [7, 5]]; times the queries (1, 1) and (0, 2) of two heads
    Case("two heads on a state", "DeltaRule",
         {"query": floats([[1, 1, 0, 2]]), "decay": floats([[1, 2]]), "key": floats([[0, 3]]),
          "value": floats([[1, -1]]), "removed": floats([[0, 1]]), "rate": floats([[1, 0]]),
          "state": floats([[[1, 2], [3, 4]]])},
         [floats([[10, 12, 14, 10]]), floats([[[3, 7], [7, 5]]])]),
    # steps of 1 and 2 for all inputs of a token: [127, 2.4] is [127, 2], [254, 3] is [254, 4]; w = 0.5 [1, -1]: digits
    # 21111 and 01111 to base 3 are 202 and 40, of 256 parts 213 and 43, and 11111 is 128
    Case("one step a token", "TernaryLinear",
         {"x": floats([127, 2.4], [254, 3], [0, 0]), "codes": hexed("d5 2b 80 80" + " 80" * 60, 1, 1, 64),
          "scale": np.array([0.5], np.float32)},
         [floats([62.5], [125], [0])], {"K": 2, "N": 1}),
]  # fmt: skip
