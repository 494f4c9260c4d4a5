"""Inputs of 8 bits that have no step: infinities, what is no number, and what is too small; in all products."""

from __future__ import annotations

import event_weights
import kernel_weights
import numpy as np
import pytest
import sparse_weights


def product_of(kind: str, name: str):
    """x [tokens, 256] -> y [tokens, 9] of 8-bit inputs, with a random matrix."""
    if kind == "dense":
        bits, zeros = (int(part) for part in name.split())
        weights = kernel_weights.Weights(np.random.default_rng(0), 9, 256, bits, 64, bool(zeros))
        return lambda x: kernel_weights.qlinear(x, weights, activation_bits=8)
    if kind == "event":
        event = event_weights.Weights(9, 256, name)
        return lambda x: event_weights.product(x, event, activation_bits=8)
    sparse = sparse_weights.Weights(name, 9, 256)
    return lambda x: sparse_weights.product(x, sparse, activation_bits=8)


MATRICES = [
    *(("dense", f"{bits} {zeros}") for bits in kernel_weights.BITS for zeros in (0, 1)),
    *(("event", name) for name in event_weights.NAMES),
    *(("sparse", name) for name in sparse_weights.NAMES),
]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [2, 33])
@pytest.mark.parametrize(("kind", "name"), MATRICES)
def test_what_has_no_step_reaches_the_outputs(isa, kind, name, count, value):
    """One token's infinity or NaN makes all its outputs NaN; the other tokens keep theirs."""
    product = product_of(kind, name)
    x = np.ones((count, 256), np.float32)
    usual = product(x)
    x[1, 37] = value
    y = product(x)
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(np.delete(y, 1, 0), np.delete(usual, 1, 0))


@pytest.mark.parametrize("count", [1, 2, 33])
@pytest.mark.parametrize(("kind", "name"), [("dense", "4 1"), ("event", "int2-g64"), ("sparse", "2:4/int4-g64")])
def test_what_is_too_small(isa, kind, name, count):
    """127 / 1e-38 is above float32's largest number: such a block is 0."""
    assert not product_of(kind, name)(np.full((count, 256), 1e-38, np.float32)).any()
