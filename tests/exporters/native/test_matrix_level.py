"""Products of AMX against those of AVX-512: the sums are the same integers, scaled in the same order."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_weights import BITS, Weights, qlinear

from exporters.artifact.native_library import library

WIDE, MATRICES = 3, 4
SHAPES = [(33, 300, 64), (48, 1200, 128), (19, 200, 96), (7, 130, 32), (3, 400, 320)]
"""N, K, group: segments of 32, 64, 96 and 128 inputs, K of one panel and of two, rows that fill no tile."""


@pytest.fixture
def levels():
    """Calls a function at both levels."""
    native = library()
    native.slmc_force_isa(-1)
    if native.slmc_isa_level() < MATRICES:
        pytest.skip("this machine has no AMX, or does not permit it")

    def both(work):
        results = []
        for level in (WIDE, MATRICES):
            native.slmc_force_isa(level)
            results.append(work())
        return results

    yield both
    native.slmc_force_isa(-1)


@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "zeros"])
@pytest.mark.parametrize("bits", BITS)
def test_every_bit_is_the_same(levels, bits, zeros):
    rng = np.random.default_rng(bits)
    for N, K, group in SHAPES:
        weights = Weights(rng, N, K, bits, group, zeros)
        for tokens, tile in ((16, 16), (31, 0), (50, 16)):
            x = rng.standard_normal((1, tokens, K)).astype(np.float32)
            wide, matrices = levels(lambda x=x, w=weights, tile=tile: qlinear(x, w, tile, activation_bits=8))
            np.testing.assert_array_equal(wide, matrices)
