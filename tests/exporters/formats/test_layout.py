"""The bytes of every format, bits_of by hand: the contract that function bodies, kernels and MatMulNBits read."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.formats.base import bytes_for
from exporters.formats.bits import pack, unpack
from exporters.formats.catalog import format_named

ONE, MINUS_ONE = "00 3c", "00 bc"  # float16, little endian

# One row each; the weights are chosen so that the scale is 1 or -1. After the last weight comes the code that decodes
# to zero, up to 32 codes (or up to the group).
BY_HAND = {
    # codes 0 1 2 3; padding 2
    "int2": ([-2, -1, 0, 1], {"codes": "e4" + " aa" * 7, "scales": ONE}),
    # codes 0 1 3 4 5 6 7 2 = low 0 1 3 0 1 2 3 2, high 0 0 0 1 1 1 1 0; padding 4 = low 0, high 1
    "int3": (
        [-4, -3, -1, 0, 1, 2, 3, -2],
        {"codes": "34 b9" + " 00" * 6, "high": "78" + " ff" * 3, "scales": ONE},
    ),
    # codes 0 7 8 15; padding 8
    "int4": ([-8, -1, 0, 7], {"codes": "70 f8" + " 88" * 14, "scales": ONE}),
    # codes 0 1 16 31 21 15 = low 0 1 0 15 5 15, high 0 0 1 1 1 0; padding 16 = low 0, high 1
    "int5": (
        [-16, -15, 0, 15, 5, -1],
        {"codes": "10 f0 f5" + " 00" * 13, "high": "dc" + " ff" * 3, "scales": ONE},
    ),
    # codes 0 1 32 63 = low 0 1 0 15, high 0 0 2 3; padding 32 = low 0, high 2
    "int6": ([-32, -31, 0, 31], {"codes": "10 f0" + " 00" * 14, "high": "e0" + " aa" * 7, "scales": ONE}),
    # codes 0 127 128 255; padding 128
    "int8": ([-128, -1, 0, 127], {"codes": "00 7f 80 ff" + " 80" * 28, "scales": ONE}),
    # the larger side is positive: the scale turns negative, 8 is code 0 and -7 code 15
    "int4-g32": ([8, -7], {"codes": "f0" + " 88" * 15, "scales": MINUS_ONE}),
    # zero 1, codes 0 1 15; padding 1
    "uint4-g32": ([-1, 0, 14], {"codes": "10 1f" + " 11" * 14, "scales": ONE, "zeros": "01"}),
    # zero 5, codes 0 7 5 = low 0 3 1, high 0 1 1; padding 5 = low 1, high 1
    "uint3-g16": ([-5, 2, 0], {"codes": "5c 55 55 55", "high": "fe ff", "scales": ONE, "zeros": "05"}),
    # two groups of 16: the first is full (codes 0, then 8), the second has -16 (scale 2, code 0) and 14 (code 15)
    "int4-g16": (
        [-8] + [0] * 15 + [-16, 14],
        {"codes": "80" + " 88" * 7 + " f0" + " 88" * 7, "scales": "00 3c 00 40"},
    ),
    # bits 1 0 1 0 1 1 0 1, then 0 1; zero counts as positive
    "sign": ([1, -1, 0, -0.5, 2, 3, -4, 5, -1, 7], {"codes": "b5 02"}),
    "fp16": ([1, -1, 0.5, 65504], {"weight": "00 3c 00 bc 00 38 ff 7b"}),
    "fp32": ([1, -2], {"weight": "00 00 80 3f 00 00 00 c0"}),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_bytes_by_hand(name):
    values, packed = BY_HAND[name]
    weight = np.array([values], np.float32)
    encoded = format_named(name).encode(weight)
    assert {n: tensor.tobytes().hex(" ") for n, tensor in encoded.packed.items()} == packed
    assert encoded.format == name and encoded.shape == weight.shape
    expected = np.where(weight >= 0, 1, -1) if name == "sign" else weight
    np.testing.assert_array_equal(format_named(name).decode(encoded), expected)


SIZES = {
    ("int4-g64", 5, 70): 5 * 2 * (32 + 2),
    ("int3-g128", 3, 129): 3 * 2 * (32 + 16 + 2),
    ("uint5-g32", 3, 129): 3 * 5 * (16 + 4 + 2 + 1),
    ("int6-g64", 5, 70): 5 * 2 * (32 + 16 + 2),
    ("uint2-g64", 7, 64): 7 * (16 + 2 + 1),
    ("int8", 1, 1): 32 + 2,
    ("int8", 3, 129): 3 * (160 + 2),
    ("sign", 5, 70): 5 * 9,
    ("fp16", 5, 70): 700,
    ("fp32", 3, 129): 1548,
}


@pytest.mark.parametrize(("name", "rows", "cols"), SIZES)
def test_size_law_by_hand(name, rows, cols):
    assert bytes_for(format_named(name), rows, cols) == SIZES[name, rows, cols]


@pytest.mark.parametrize(
    ("bits", "codes", "bits_of"),
    [(1, [0, 0, 0, 0, 0, 0, 0, 1], [0x80]), (2, [3, 2, 1, 0], [0x1B]), (4, [1, 2, 15, 0], [0x21, 0x0F]), (8, [7], [7])],
)
def test_packing_puts_the_first_code_lowest(bits, codes, bits_of):
    given = np.array([codes], np.uint8)
    np.testing.assert_array_equal(pack(given, bits), np.array([bits_of], np.uint8))
    np.testing.assert_array_equal(unpack(pack(given, bits), bits), given)
