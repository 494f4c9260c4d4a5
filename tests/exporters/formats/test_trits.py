"""Ternary matrices at their own scale: the layout by hand, exactness, its size, and what it is refused for."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.artifact.errors import SlmcError
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from exporters.formats.trits import ternary
from toolchain.model.tree import Block, Layer, ModelTree
from toolchain.search.problem import layer_options

FORMAT = format_named("ternary")


def test_bytes_by_hand() -> None:
    """Inputs 0, 4, 8, 12 and 16 of a row are the digits of byte 0: 2 0 1 1 1 to base 3 is 175; 256 * 175 / 243 = 184.4.

    All others are zero, whose code is 1: 11111 is 121, 127.5 rounded up.
    """
    weight = np.zeros((1, 20), np.float32)
    weight[0, 0], weight[0, 4] = 0.75, -0.75
    encoded = FORMAT.encode(weight)
    assert encoded.packed["codes"].shape == (1, 1, 64)
    assert encoded.packed["codes"].flatten().tolist() == [185] + [128] * 63
    assert encoded.packed["scale"].tolist() == [0.75]


@pytest.mark.parametrize("shape", [(16, 20), (33, 47), (1, 1), (64, 200)])
def test_what_is_ternary_stays_as_it_is(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape)
    weight = rng.integers(-1, 2, shape).astype(np.float32) * np.float32(0.0371)
    weight[0, 0] = 0.0371
    np.testing.assert_array_equal(FORMAT.decode(FORMAT.encode(weight)), weight)


def test_bitnets_rule_is_used_once() -> None:
    """a = mean |w| = 1; 0.4 is 0, 1.6 and 2 are 1: a second time a would be 0.6."""
    weight = np.array([[0.4, -1.6, 2.0, -0.6, 0.4]], np.float32)
    once = FORMAT.decode(FORMAT.encode(weight))
    np.testing.assert_array_equal(once, [[0, -1, 1, -1, 0]])
    np.testing.assert_array_equal(FORMAT.decode(FORMAT.encode(once)), once)
    scale, steps = ternary(np.zeros((2, 2), np.float32))
    assert scale == np.float32(1e-5) and not steps.any()


def test_size() -> None:
    """1.625 bits of 1024 inputs, 1.602 of 2816, and a scale."""
    assert bytes_for(FORMAT, 1024, 1024) == 64 * 52 * 64 + 4
    assert 8 * bytes_for(FORMAT, 1024, 2816) / (1024 * 2816) == pytest.approx(1.602, abs=1e-3)


def test_layers_that_may_have_it() -> None:
    exact, free = Layer("a", "linear", 16, 20, exact="ternary"), Layer("b", "linear", 16, 20)
    tree = ModelTree("x", (Block("blocks.0", (exact, free)),), 0, 0)
    options = layer_options(tree, (format_named("int8"), FORMAT), {}, "gptq")
    assert [c.format for c in options["a"]] == ["ternary"] and [c.format for c in options["b"]] == ["int8"]
    assert options["a"][0].method == "nearest"
    with pytest.raises(SlmcError, match="layer a: its product is that of format ternary"):
        layer_options(tree, (format_named("int8"),), {"a": "int8"}, "gptq")
    with pytest.raises(SlmcError, match="layer b: format ternary is for layers that lose nothing in it"):
        layer_options(tree, (format_named("int8"),), {"b": "ternary"}, "gptq")
