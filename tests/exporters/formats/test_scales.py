"""A matrix times any power of two has the same codes, and decodes to just that power of two times as much."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.formats.base import Encoded
from exporters.formats.catalog import FP32, SEARCHED, SEARCHED_SPARSE, format_named
from exporters.formats.scales import exponent_of, stored_scales

NAMES = [f.name for f in (FP32, *SEARCHED, *SEARCHED_SPARSE)] + ["event/int4-g64", "event/uint3-g64", "lr4+int3-g64"]
WEIGHT = (np.random.default_rng(0).normal(0, 0.02, (40, 40))).astype(np.float32)
WEIGHT[:, 7] = 0


def codes(encoded: Encoded) -> dict[str, bytes]:
    return {n: p.tobytes() for n, p in encoded.packed.items() if p.dtype == np.uint8}


@pytest.mark.parametrize("name", NAMES)
def test_codes_do_not_know_the_size_of_a_matrix(name: str) -> None:
    fmt = format_named(name)
    usual = fmt.encode(WEIGHT)
    decoded = fmt.decode(usual)
    assert usual.exponent == 0
    for k in (*range(-100, 101, 10), -13, -7, -1, 1, 3, 15):
        scaled = fmt.encode(np.ldexp(WEIGHT, k))
        assert codes(scaled) == codes(usual), k
        exact = (name != "fp16" and not name.startswith("lr")) or k % 2 == 0  # their halves know odd from even
        if name == "fp16":
            np.testing.assert_allclose(
                fmt.decode(scaled), np.ldexp(WEIGHT, k), rtol=2.0**-11, atol=np.ldexp(2.0**-24, k)
            )
        elif exact:
            np.testing.assert_array_equal(fmt.decode(scaled), np.ldexp(decoded, k))


@pytest.mark.parametrize("name", NAMES)
def test_scales_are_normal_numbers_or_the_matrix_has_an_exponent(name: str) -> None:
    fmt = format_named(name)
    for k in (-20, 20, 40):
        encoded = fmt.encode(np.ldexp(WEIGHT, k))
        floats = [p for n, p in encoded.packed.items() if n.endswith("scales")]
        assert all((np.abs(p) > 2.0**-14).all() and (np.abs(p) < 65504).all() for p in floats)
        assert (encoded.exponent != 0) == ((name != "fp32" and k != 20) or name == "fp16")


def test_rows_of_very_different_size_share_one_exponent() -> None:
    """Int8: rows 2^17 apart are both kept; one 2^30 times smaller than the largest is nothing beside it."""
    weight = np.array([[1.0], [2.0**-17], [2.0**-30]], np.float32)
    fmt = format_named("int8")
    assert fmt.decode(fmt.encode(weight)).tolist() == [[1.0], [2.0**-17], [0.0]]


def test_zeros_change_nothing() -> None:
    weight = np.zeros((2, 64), np.float32)
    assert exponent_of(weight) == 0
    weight[0] = 1
    encoded = format_named("int4-g64").encode(weight)
    assert encoded.exponent == 0 and encoded.packed["scales"].tolist() == [[-0.125], [2.0**-14]]


def test_ends_of_float32() -> None:
    fmt = format_named("int4-g32")
    for value in (3e38, 1e-38):
        weight = np.full((1, 32), value, np.float32)
        np.testing.assert_allclose(fmt.decode(fmt.encode(weight)), weight, rtol=1e-3)


@pytest.mark.parametrize("name", ["int4", "uint4", "fp16", "2:4/int4"])
def test_what_is_not_finite_gets_no_exponent(name: str) -> None:
    weight = np.array([[np.inf, 1, 1, 1]], np.float32)
    assert exponent_of(weight) == 0


def test_stored_scales_by_hand() -> None:
    found = stored_scales(np.array([0, -0.0, 1e-6, -1e-6, 1e9, -1e9, 0.1], np.float32))
    assert found.tolist() == [2.0**-14, 2.0**-14, 2.0**-14, -(2.0**-14), 65504, -65504, 0.0999755859375]
