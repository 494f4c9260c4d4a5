"""TernaryLinear in ONNX Runtime against plain NumPy, on every instruction set that this machine has."""

from __future__ import annotations

import numpy as np
import pytest
from one_node import session

from exporters.formats.trits import TRITS


def product(x: np.ndarray, steps: np.ndarray, scale: float) -> np.ndarray:
    """By the operator, with a matrix of scale * steps [N, K]."""
    packed = TRITS.nearest((scale * steps).astype(np.float32)).packed
    N, K = steps.shape
    return session("TernaryLinear", {"x": x}, packed, ("x", "codes", "scale"), K=K, N=N).run(None, {"x": x})[0]


def drawn(N: int, K: int, seed: int) -> np.ndarray:
    """-1, 0 and 1, all of them there."""
    steps = np.random.default_rng(seed).integers(-1, 2, (N, K))
    steps.flat[:3] = -1, 0, 1
    return steps


@pytest.mark.parametrize("tokens", [1, 3, 9])
@pytest.mark.parametrize(("N", "K"), [(3, 1), (16, 20), (33, 259), (100, 1284)])
def test_whole_numbers_are_exact(isa, N, K, tokens):
    """The largest input of every token is 127, so that its step is 1, and the scale is a power of two."""
    rng = np.random.default_rng([N, K, tokens])
    x = rng.integers(-127, 128, (tokens, K)).astype(np.float32)
    x[:, 0] = 127
    steps = drawn(N, K, K)
    np.testing.assert_array_equal(product(x, steps, 0.25), 0.25 * (x.astype(np.int64) @ steps.T))


@pytest.mark.parametrize("K", [32760, 40000])
def test_the_largest_sums_do_not_overflow(isa, K):
    """One sign everywhere, on either side of the length up to which sums of fractions are taken."""
    steps = np.ones((17, K), np.int64)
    steps[1:] = -1
    x = np.full((1, K), 127, np.float32)
    steps[0, :3] = 1, 0, -1
    np.testing.assert_array_equal(product(x, steps, 1.0), 127.0 * steps.sum(1)[None])


def test_inputs_are_rounded_half_to_even_with_one_step_per_token(isa):
    """Steps 1 and 2: 0.5 -> 0, 1.5 -> 2, -2.5 -> -2; 3 -> 2 * round(1.5) = 4, 5 -> 2 * 2."""
    x = np.array([[127, 0.5, 1.5, -2.5], [254, 3, 5, -254]], np.float32)
    found = product(x, np.array([[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, -1]]), 1.0)
    assert found.tolist() == [[0, 2, -2, 129], [4, 4, -254, 508]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_reaches_every_output_of_its_token(isa, value):
    x = np.ones((2, 70), np.float32)
    x[0, 69] = value
    found = product(x, drawn(18, 70, 1), 1.0)
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()
