"""Distances of texts by hand."""

from __future__ import annotations

import math

import pytest
import torch

from toolchain.model.text_distance import divergence, text_distance


def ids(*tokens: int) -> torch.Tensor:
    return torch.tensor(tokens)


def test_divergences_by_hand() -> None:
    assert divergence(ids(0, 1), ids(1, 0), 4) == pytest.approx(0)
    assert divergence(ids(0, 1), ids(2, 3), 4) == pytest.approx(1)
    # Half of each is token 1: the mixture has 1/4, 1/2, 1/4, which is 1.5 bits, and each text is 1 bit.
    assert divergence(ids(0, 1), ids(1, 2), 4) == pytest.approx(0.5)
    # (3/4, 1/4) and (1/4, 3/4) mix to one bit.
    own = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert divergence(ids(0, 0, 0, 1), ids(0, 1, 1, 1), 2) == pytest.approx(1 - own)


def test_parts_of_equal_length_are_compared() -> None:
    """Of six tokens of calibration the first and the last two, of the evaluation text the first two."""
    found = text_distance(ids(0, 1, 3, 3, 1, 2), ids(0, 1), 4)
    assert (found.between, found.within) == pytest.approx((0, 0.5))
    longer = text_distance(ids(0, 0, 1, 1), ids(2, 2, 2, 2, 2), 4)
    assert (longer.between, longer.within) == pytest.approx((1, 1))
    assert longer.text() == (
        "calibration and evaluation text are 1.00 bits apart in their token frequencies, two parts of the calibration "
        "text 1.00"
    )
