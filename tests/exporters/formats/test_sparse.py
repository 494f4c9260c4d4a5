"""N:M, shared-pattern, decomposed and four-bit float formats: bytes by hand, sizes, pruning, and masks given."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Encoded, bytes_for
from exporters.formats.catalog import format_named
from exporters.formats.decomposed import INLIERS, OUTLIERS, DecomposedFormat
from exporters.formats.float4 import STEPS, Float4Format
from exporters.formats.nm import NmFormat
from exporters.formats.parts import Grid
from exporters.formats.patterns import PERIODS, Patterns
from exporters.formats.tiles import interleaved, separated

NAMES = [
    *(f"{n}:{m}/int4-g64" for m in PERIODS for n in range(1, m)),
    *(f"{nm}/{values}" for nm in ("2:4", "5:8", "3:16", "4:8x16") for values in ("int2", "int3-g32", "int5-g128",
                                                                               "int6-g16", "int8", "fp4-g32")),
    "fp4-g16", "fp4-g32", "1:8/int8+6:8/fp4-g16", "2:8/int8+4:8/int4-g64", "1:4/int6-g64+2:4/int3-g64",
]  # fmt: skip
SHAPES = [(1, 1), (3, 31), (5, 70), (18, 129), (4, 256)]


def random_weight(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(shape[1]).standard_normal(shape).astype(np.float32)


def nm(name: str) -> NmFormat:
    fmt = format_named(name)
    assert isinstance(fmt, NmFormat)
    return fmt


# By hand first.


def test_two_of_four_by_hand():
    """The first four keep places 1, 2 (mask 6, rank 2) with codes 15 and 0, scale 1, the next 0 and 3 (mask 9, rank 3)
    with codes 12 and 9. One field: 2 | 3 << 3 = 26. Padded periods follow: mask 3, rank 0, zero's code 8."""
    encoded = format_named("2:4/int4-g64").encode(np.array([[1, 7, -8, 0, 4, 0, 0.5, 1]], np.float32))
    codes = np.full(32, 0x88, np.uint8)
    codes[:4] = [0x8F, 0x80, 0x8C, 0x89]
    assert encoded.packed["codes"].tolist() == [codes.tolist()]
    assert encoded.packed["patterns"].tolist() == [[26] + [0] * 11]
    assert encoded.packed["scales"].tolist() == [[1]]


def test_tiles_by_hand():
    """Rows a b c d of two units: the tile goes a0 b0 c0 d0 a1 b1 c1 d1; the fifth row stays as it is."""
    rows = np.array([[10, 11], [20, 21], [30, 31], [40, 41], [50, 51]], np.uint8)
    assert interleaved(rows, 1, 4).tolist() == [[10, 20], [30, 40], [11, 21], [31, 41], [50, 51]]
    np.testing.assert_array_equal(separated(interleaved(rows, 1, 4), 1, 4), rows)


def test_shared_pattern_by_hand():
    """Squares decide over both rows: columns 0 (25 + 0) and 2 (16 + 16) outweigh 1 (9 + 9) and 3 (0 + 1)."""
    fmt = nm("2:4x16/int8")
    encoded = fmt.encode(np.array([[5, 3, 4, 0], [0, -3, -4, 1]], np.float32))
    assert encoded.packed["patterns"].shape == (1, 12)
    assert fmt.mask(encoded).tolist() == [[True, False, True, False]] * 2
    np.testing.assert_allclose(fmt.decode(encoded), [[5, 0, 4, 0], [0, 0, -4, 0]], atol=0.03)


def test_float4_by_hand():
    """Scale 12 / 12 = 1; 2.5, 5 and 10 lie half-way and go to the even code, 2.6 to 3, a negative nought to nought."""
    weight = np.array([[12, -8, 2.5, 2.6, 5, 10, -0.4, 1]], np.float32)
    fmt = format_named("fp4-g16")
    encoded = fmt.encode(weight)
    assert fmt.decode(encoded).tolist() == [[12, -8, 2, 3, 4, 8, 0, 1]]
    assert encoded.packed["scales"][0, 0] == 1
    assert encoded.packed["codes"].tolist() == [[[0xE7, 0x32, 0x64, 0x10, 0, 0, 0, 0]]]


def test_decomposed_by_hand():
    """The largest of eight is the outlier, six of the other seven are inliers, the smallest is dropped."""
    weight = np.array([[1, -100, 12, 0.1, 2, 3, 4, 6]], np.float32)
    fmt = format_named("1:8/int8+6:8/fp4-g16")
    assert isinstance(fmt, DecomposedFormat)
    decoded = fmt.decode(fmt.encode(weight))
    assert decoded.tolist() == [[1, -100, 12, 0, 2, 3, 4, 6]]
    assert fmt.throughput() == 4  # the paper's W7:8-1:8int8-6:8fp4


# Then over all of them.


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_as_the_law_says_and_encoding_twice_changes_nothing(name):
    fmt = format_named(name)
    assert fmt.name == name
    for shape in SHAPES:
        encoded = fmt.encode(random_weight(shape))
        law = fmt.layout_for(*shape)
        packed = {n: (p.shape, p.dtype) for n, p in encoded.packed.items()}
        assert packed == {n: (p.shape, p.dtype) for n, p in law.items()}
        assert encoded.nbytes == bytes_for(fmt, *shape)
        decoded = fmt.decode(encoded)
        assert decoded.shape == shape and decoded.dtype == np.float32
        if not isinstance(fmt, DecomposedFormat):  # whose parts may trade places when the outlier is rounded down
            np.testing.assert_array_equal(fmt.decode(fmt.encode(decoded)), decoded)


@pytest.mark.parametrize(
    ("name", "bits"),
    [("2:4/int4-g64", 2 + 0.75 + 0.25), ("2:4/int4-g128", 2 + 0.75 + 0.125), ("4:8/int4-g64", 2 + 0.875 + 0.25),
     ("6:8/int4-g64", 3 + 0.625 + 0.25), ("1:4/int8-g64", 2 + 0.5 + 0.25), ("4:8x16/int4-g64", 2 + 0.875 / 16 + 0.25),
     ("8:16/int4-g64", 2 + 1 + 0.25), ("4:16/int4-g64", 1 + 11 / 16 + 0.25), ("fp4-g16", 4 + 1),
     ("1:8/int8-g128+6:8/fp4-g16", 1 + 0.375 + 0.125 + 3 + 0.625 + 1)],
)  # fmt: skip
def test_bits_per_weight(name, bits):
    assert bytes_for(format_named(name), 64, 1024) * 8 / (64 * 1024) == bits


@pytest.mark.parametrize(("kept", "period"), [(n, m) for m in PERIODS for n in range(1, m)])
def test_every_pattern_is_coded_and_in_no_more_bits_than_needed(kept, period):
    patterns = Patterns(kept, period)
    masks = [sum(1 << p for p in places) for places in itertools.combinations(range(period), kept)]
    bits = np.array([[mask >> i & 1 for i in range(period)] for mask in masks], bool)
    whole = np.resize(bits, (-(-len(bits) * period // 128) * 128 // period, period)).reshape(1, -1)
    stored = patterns.encode(whole)
    np.testing.assert_array_equal(patterns.decode(stored), whole)
    ideal = math.ceil(math.log2(len(masks)))
    assert stored.size * 8 * period == whole.size * (ideal if ideal <= 11 else 16)


@pytest.mark.parametrize("name", ["2:4/int8", "4:8/int8", "3:16/int8"])
def test_the_largest_are_kept(name):
    fmt, weight = nm(name), random_weight((5, 70))
    mask = fmt.mask(fmt.encode(weight))
    for row in range(5):
        for start in range(0, 70, fmt.period):
            part = np.abs(weight[row, start : start + fmt.period])
            wanted = np.sort(part)[::-1][: fmt.kept]
            np.testing.assert_array_equal(np.sort(part[mask[row, start : start + fmt.period]])[::-1], wanted)


@pytest.mark.parametrize("name", ["2:4/int4-g64", "4:8x16/int4-g16", "6:8/fp4-g32"])
def test_masks_codes_and_grid_are_stored_as_given(name):
    """What a compression method chose comes back, however little of it magnitude would have chosen."""
    fmt, rng = nm(name), np.random.default_rng(0)
    mask = fmt.largest_mask(rng.random((18, 70)).astype(np.float32))
    codes = rng.integers(0, 16, (18, 70)).astype(np.uint8)
    groups = fmt.groups(70)
    grid = Grid(rng.uniform(0.5, 1, (18, groups)).astype(np.float16).astype(np.float32), None)
    decoded = fmt.decode(fmt.store(mask, codes, grid))
    steps = STEPS[codes] if isinstance(fmt.values, Float4Format) else codes.astype(np.float32) - 8
    scales = np.repeat(grid.scales, fmt.group or 70, 1)[:, :70]
    np.testing.assert_array_equal(decoded, np.where(mask, steps * scales, 0))


def test_periods_with_less_are_filled_up_with_zeros():
    fmt = nm("2:4/int4-g64")
    codes, grid = np.full((2, 8), 15, np.uint8), Grid(np.ones((2, 1), np.float32), None)
    mask = np.zeros((2, 8), bool)
    mask[0, 3] = True
    assert fmt.decode(fmt.store(mask, codes, grid)).tolist() == [[0, 0, 0, 7, 0, 0, 0, 0], [0] * 8]


def test_masks_with_too_much_are_refused():
    grid = Grid(np.ones((2, 1), np.float32), None)
    codes = np.zeros((2, 8), np.uint8)
    with pytest.raises(SlmcError, match="2:4/int8 keeps 2 of 4 inputs, and this mask has a period with 3"):
        nm("2:4/int8").store(np.array([[1, 1, 1, 0, 0, 0, 0, 0]] * 2, bool), codes, grid)
    rows = np.array([[1, 1, 0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0]], bool)
    nm("2:4/int8").store(rows, codes, grid)
    with pytest.raises(SlmcError, match="2:4x16/int8 keeps 2 of 4 inputs, and this mask has a period with 3"):
        nm("2:4x16/int8").store(rows, codes, grid)
    fmt = format_named("2:4/int8+2:4/int8")
    assert isinstance(fmt, DecomposedFormat)
    with pytest.raises(SlmcError, match="their places must be disjoint"):
        fmt.store((rows, codes, grid), (rows, codes, grid))


def test_parts_of_a_decomposed_matrix_are_disjoint():
    fmt = format_named("2:8/int8-g64+4:8/int4-g64")
    assert isinstance(fmt, DecomposedFormat)
    weight = random_weight((5, 72))
    encoded = fmt.encode(weight)
    outliers, inliers = (part.decode(own) for part, own in fmt.summands(encoded))
    assert not (outliers.astype(bool) & inliers.astype(bool)).any()
    least = np.where(outliers, np.abs(weight), np.inf).reshape(5, -1, 8).min(-1)
    most = np.where(inliers, np.abs(weight), 0).reshape(5, -1, 8).max(-1)
    assert (least >= most).all()
    assert {n.split("_")[0] + "_" for n in encoded.packed} == {OUTLIERS, INLIERS}


@pytest.mark.parametrize("name", ["2:4/int4-g64", "4:8x16/fp4-g16", "1:8/int8+6:8/fp4-g16", "fp4-g32"])
@pytest.mark.parametrize("size", [0, 1e38, 1e-3, 1e-45])
def test_any_size_stays_finite(name, size):
    fmt = format_named(name)
    with np.errstate(invalid="raise", divide="raise"):
        decoded = fmt.decode(fmt.encode((np.linspace(-1, 1, 140).reshape(2, 70) * size).astype(np.float32)))
    assert np.isfinite(decoded).all() and (size > 0 or not decoded.any())


def test_packed_tensors_that_a_stranger_wrote_decode_within_bounds():
    """Fields beyond the last rank stand for the first pattern."""
    fmt = nm("2:4/int4-g64")
    packed = {n: np.full(p.shape, 255, p.dtype) for n, p in fmt.layout_for(3, 70).items()}
    packed["scales"] = np.ones((3, 2), np.float16)
    decoded = fmt.decode(Encoded(fmt.name, (3, 70), packed))
    assert decoded[:, :4].tolist() == [[7, 7, 0, 0]] * 3
