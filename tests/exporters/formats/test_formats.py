"""One walk over all formats: sizes as the law says, nearest values, stable codes, harmless padding, no NaN ever."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from exporters.formats.base import Encoded, Format, bytes_for
from exporters.formats.catalog import FIXED, SEARCHED, format_named
from exporters.formats.integer import CODE_BITS, IntegerFormat
from exporters.formats.parts import Grid

NAMED = ("int2", "int3", "int4", "int5", "int6", "int8", "int4-g16", "int8-g32", "int2-g256", "uint2", "uint3-g16",
         "uint4-g128", "uint5-g32", "uint6", "uint8", "uint8-g64")  # fmt: skip
FORMATS: dict[str, Format] = {f.name: f for f in (*FIXED, *SEARCHED, *map(format_named, NAMED))}
INTEGERS = {name: f for name, f in FORMATS.items() if isinstance(f, IntegerFormat)}
SHAPES = [(5, 70), (1, 1), (3, 129), (2, 64), (4, 31)]
SMALLEST_SCALE = 2.0**-14

walk = pytest.mark.parametrize("name", FORMATS)
walk_integers = pytest.mark.parametrize("name", INTEGERS)
walk_shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")


def random_weight(name: str, shape: tuple[int, int]) -> np.ndarray:
    """Rows of very different size, some with one sign only."""
    rng = np.random.default_rng(zlib.crc32(f"{name} {shape}".encode()))
    weight = rng.normal(0, 10.0 ** rng.uniform(-2, 1, (shape[0], 1)), shape)
    weight[::3] = np.abs(weight[::3])
    return weight.astype(np.float32)


def codes_of(fmt: IntegerFormat, encoded: Encoded) -> np.ndarray:
    """Codes [rows, groups, group], padding included, unpacked bit by bit."""
    low, high = CODE_BITS[fmt.bits]
    code = 0
    for tensor, bits, shift in (("codes", low, 0), ("high", high, low)):
        if bits:
            stream = np.unpackbits(encoded.packed[tensor], axis=-1, bitorder="little")
            places = stream.reshape(*stream.shape[:-1], -1, bits).astype(np.int64)
            code = code + ((places << np.arange(bits)).sum(-1) << shift)
    return code


def grid_of(fmt: IntegerFormat, encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero of every weight, float64 [rows, groups * group]."""
    scales = encoded.packed["scales"].astype(np.float64) * 2.0**encoded.exponent
    zeros = encoded.packed["zeros"] if "zeros" in encoded.packed else np.full(scales.shape, 2 ** (fmt.bits - 1))
    size = fmt.group_size(encoded.shape[1])
    return np.repeat(scales, size, 1), np.repeat(zeros.astype(np.float64), size, 1)


@walk
@walk_shapes
def test_size_law_is_what_is_written(name, shape):
    fmt, weight = FORMATS[name], random_weight(name, shape)
    encoded = fmt.encode(weight)
    law = fmt.layout_for(*shape)
    assert {n: (p.shape, p.dtype) for n, p in encoded.packed.items()} == {n: (p.shape, p.dtype) for n, p in law.items()}
    written = sum(len(tensor.tobytes()) for tensor in encoded.packed.values())
    assert written == encoded.nbytes == bytes_for(fmt, *shape) == sum(p.nbytes for p in law.values())
    assert encoded.format == name and encoded.shape == shape


@walk
@walk_shapes
def test_decoding_gives_float32_of_the_same_shape(name, shape):
    fmt = FORMATS[name]
    decoded = fmt.decode(fmt.encode(random_weight(name, shape)))
    assert decoded.shape == shape and decoded.dtype == np.float32 and np.isfinite(decoded).all()


@pytest.mark.parametrize("name", [n for n, f in FORMATS.items() if not n.startswith(("uint", "nl"))])
@walk_shapes
def test_encoding_twice_changes_nothing(name, shape):
    """Formats that store zeros or steps re-fit them to what the first rounding left; these do not."""
    fmt = FORMATS[name]
    first = fmt.encode(random_weight(name, shape))
    second = fmt.encode(fmt.decode(first))
    for tensor in first.packed:
        np.testing.assert_array_equal(second.packed[tensor], first.packed[tensor])


@walk_integers
@walk_shapes
def test_codes_on_the_same_grid_stay(name, shape):
    fmt = INTEGERS[name]
    encoded = fmt.encode(random_weight(name, shape))
    zeros = encoded.packed["zeros"].astype(np.float32) if "zeros" in encoded.packed else None
    grid = Grid(encoded.packed["scales"].astype(np.float32), zeros)
    again = fmt.store(fmt.codes(fmt.values_of(encoded), grid), grid)
    for tensor in encoded.packed:
        np.testing.assert_array_equal(again.packed[tensor], encoded.packed[tensor])


@walk_integers
@walk_shapes
def test_every_weight_takes_the_nearest_value(name, shape):
    """Against all 2^bits values of its group, one by one."""
    fmt, weight = INTEGERS[name], random_weight(name, shape)
    encoded = fmt.encode(weight)
    scales, zeros = (g[:, : shape[1]] for g in grid_of(fmt, encoded))
    values = scales[..., None] * (np.arange(2**fmt.bits) - zeros[..., None])
    nearest = np.abs(values - weight[..., None]).min(-1)
    error = np.abs(fmt.decode(encoded).astype(np.float64) - weight)
    assert (error <= nearest + 1e-4 * np.abs(scales)).all()


@walk_integers
@walk_shapes
def test_errors_are_half_a_step_at_most(name, shape):
    """A symmetric grid has one value fewer on its smaller side: there the last half step is cut off."""
    fmt, weight = INTEGERS[name], random_weight(name, shape)
    encoded = fmt.encode(weight)
    scales, _ = (g[:, : shape[1]] for g in grid_of(fmt, encoded))
    error = np.abs(fmt.decode(encoded).astype(np.float64) - weight) / np.abs(scales)
    float16_step = 2**fmt.bits * 2.0**-11  # how far the ends of the grid move when the scale is rounded
    cut = fmt.symmetric & (weight / scales > 2 ** (fmt.bits - 1) - 0.5)
    assert error[~cut].max(initial=0) <= 0.5 + float16_step + 1e-4
    assert error[cut].max(initial=0) <= 1 + float16_step + 1e-4


@pytest.mark.parametrize("name", ["fp16", "fp32"])
@walk_shapes
def test_floats_are_rounded_to_their_own_precision(name, shape):
    weight = random_weight(name, shape)
    error = np.abs(FORMATS[name].decode(FORMATS[name].encode(weight)) - weight)
    assert (error <= (0 if name == "fp32" else np.abs(weight) * 2.0**-11 + 2.0**-25)).all()


@walk_shapes
def test_sign_keeps_the_sign(shape):
    weight = random_weight("sign", shape) * np.where(np.arange(shape[1]) % 3, 1, -1)
    decoded = FORMATS["sign"].decode(FORMATS["sign"].encode(weight))
    np.testing.assert_array_equal(decoded, np.copysign(1, weight))


@walk_integers
@walk_shapes
def test_padding_decodes_to_zero(name, shape):
    fmt = INTEGERS[name]
    encoded = fmt.encode(random_weight(name, shape) + 1)
    codes, (scales, zeros) = codes_of(fmt, encoded), grid_of(fmt, encoded)
    everything = scales * (codes.reshape(shape[0], -1) - zeros)
    assert not everything[:, shape[1] :].any()
    np.testing.assert_allclose(fmt.decode(encoded), everything[:, : shape[1]], rtol=1e-6)


@walk_integers
def test_what_stands_in_the_padding_is_not_seen(name):
    fmt, shape = INTEGERS[name], (3, 21)
    encoded = fmt.encode(random_weight(name, shape))
    packed = {n: tensor.copy() for n, tensor in encoded.packed.items()}
    for tensor, bits in zip(("codes", "high"), CODE_BITS[fmt.bits], strict=True):
        if bits:
            packed[tensor].reshape(3, -1)[:, -(-21 * bits // 8) :] ^= 0xFF  # from the first whole byte of padding on
            assert (packed[tensor] != encoded.packed[tensor]).any()
    np.testing.assert_array_equal(fmt.values_of(Encoded(name, shape, packed)), fmt.values_of(encoded))


@walk
def test_zero_is_exact(name):
    fmt = FORMATS[name]
    decoded = fmt.decode(fmt.encode(np.zeros((3, 70), np.float32)))
    np.testing.assert_array_equal(decoded, np.full((3, 70), 1 if name == "sign" else 0))


@walk_integers
def test_zero_stays_exact_among_others(name):
    """Pruned weights must stay pruned, whatever else is in their group."""
    weight = random_weight(name, (5, 70))
    weight[:, ::2] = 0
    decoded = INTEGERS[name].decode(INTEGERS[name].encode(weight))
    assert not decoded[:, ::2].any() and decoded[:, 1::2].any()


@walk
@pytest.mark.parametrize("size", [1e38, 1e6, 1e-3, 1e-8, 1e-38, 1e-45])
@pytest.mark.parametrize("low", [-1.0, 0.0, 0.5], ids=["both signs", "positive", "narrow"])
def test_any_size_stays_finite(name, size, low):
    weight = (np.linspace(low, 1, 140).reshape(2, 70) * size).astype(np.float32)
    with np.errstate(invalid="raise", divide="raise"):
        encoded = FORMATS[name].encode(weight)
        decoded = FORMATS[name].decode(encoded)
    assert np.isfinite(decoded).all()
    for tensor in encoded.packed.values():
        assert tensor.dtype == np.uint8 or np.isfinite(tensor).all()
    if name != "sign":
        assert (np.sign(decoded) * np.sign(weight) >= 0).all()  # nothing changes its sign
        assert (np.abs(decoded) <= np.abs(weight).max() * 1.01 + SMALLEST_SCALE / 2).all()


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("int4", 2.0**20, True),  # a scale of 2^17 is no float16
        ("int4", 2.0**18, False),
        ("int8", 2.0**-7, False),  # a scale of 2^-14, the smallest normal float16
        ("int8", 2.0**-8, True),
        ("uint4", 15 * 2.0**-15, True),
        ("fp16", 2.0**17, True),
        ("fp16", 2.0**-9, False),
        ("fp16", 2.0**-30, True),
    ],
)
def test_ends_of_float16_by_hand(name, value, kept):
    fmt = format_named(name)
    encoded = fmt.encode(np.array([[value]], np.float32))
    assert (encoded.exponent != 0) == kept and encoded.exponent % 2 == 0
    assert fmt.decode(encoded).item() == value
