"""Integers with a diagonal or a thin product beside them: by hand, by exact cases, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.artifact.errors import SlmcError
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from exporters.formats.corrected import CorrectedFormat, thin
from exporters.formats.integer import IntegerFormat


def test_names():
    diagonal = format_named("diag+int4-g64")
    assert diagonal == CorrectedFormat(IntegerFormat(4, 64, True), 0) and diagonal.name == "diag+int4-g64"
    low = format_named("lr12+uint3-g32")
    assert low == CorrectedFormat(IntegerFormat(3, 32, False), 12) and low.name == "lr12+uint3-g32"


def test_size_by_hand():
    """int4-g64 of 128 x 128: 8192 bytes of codes, 256 scales; a diagonal of 128 floats, or 2 x 4 x 128 halves."""
    assert bytes_for(format_named("diag+int4-g64"), 128, 128) == 8192 + 512 + 512
    assert bytes_for(format_named("lr4+int4-g64"), 128, 128) == 8192 + 512 + 2048


def test_a_matrix_near_a_diagonal_by_hand():
    """Diagonal 2, the rest of a row 0.25 and -0.25: with one scale for all, int2 knows -2, -1, 0 and 1 of it; without
    the diagonal the grid is 0.125 x (-2 .. 1), and -0.25 is exact."""
    weight = np.array([[2, -0.25, 0.125], [-0.25, 2, -0.125], [0, 0.125, -2]], np.float32)
    fmt = format_named("diag+int2")
    encoded = fmt.encode(weight)
    assert encoded.packed["diagonal"].tolist() == [2, 2, -2]
    assert fmt.decode(encoded).tolist() == [[2, -0.25, 0.125], [-0.25, 2, -0.125], [0, 0.125, -2]]
    assert np.abs(format_named("int2").decode(format_named("int2").encode(weight)) - weight).max() >= 0.25


def test_low_rank_is_the_best_of_its_rank():
    """Eckart and Young: what a product of rank 2 leaves is the third and later singular values."""
    error = np.random.default_rng(0).standard_normal((12, 9)).astype(np.float32)
    packed = thin(error, 2)
    left = np.linalg.norm(error - packed["left"].astype(np.float32) @ packed["right"].astype(np.float32))
    rest = np.linalg.svd(error, compute_uv=False)[2:]
    assert left == pytest.approx(np.sqrt((rest**2).sum()), rel=1e-3)


def test_integers_and_correction_add_up():
    weight = np.random.default_rng(1).standard_normal((40, 70)).astype(np.float32)
    fmt = format_named("lr3+int3-g32")
    encoded = fmt.encode(weight)
    assert {n: (p.shape, p.dtype) for n, p in encoded.packed.items()} == {
        n: (p.shape, p.dtype) for n, p in fmt.layout_for(40, 70).items()
    }
    plain = fmt.values.decode(fmt.integers(encoded))
    assert np.array_equal(fmt.decode(encoded), plain + fmt.beside(encoded))
    assert np.linalg.norm(fmt.decode(encoded) - weight) < 0.95 * np.linalg.norm(plain - weight)


@pytest.mark.parametrize(("name", "shape"), [("diag+int4", (3, 4)), ("lr4+int4", (4, 70)), ("lr4+int4", (70, 3))])
def test_shapes_that_have_no_such_correction(name, shape):
    fmt = format_named(name)
    assert not fmt.takes(*shape)
    for action in (lambda: fmt.layout_for(*shape), lambda: fmt.encode(np.zeros(shape, np.float32))):
        with pytest.raises(SlmcError, match=rf"the matrix is {shape[0]} x {shape[1]}; it needs "):
            action()


def test_values_beyond_float16_stay_finite():
    encoded = format_named("lr1+int4").encode(np.full((3, 3), 1e30, np.float32))
    assert np.isfinite(format_named("lr1+int4").decode(encoded)).all()
