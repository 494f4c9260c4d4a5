"""Input-major formats: the order of outputs by hand, nothing lost on the way there and back, exact sizes."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.artifact.errors import SlmcError
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from exporters.formats.event import EventFormat, row_words, stored_order

NAMES = ["int2-g16", "int3-g32", "int4-g64", "int5-g32", "int6-g64", "int8", "int4", "uint2-g32", "uint3-g64",
         "uint4-g128", "uint5-g16", "uint6", "uint8-g256"]  # fmt: skip


def event(name: str) -> EventFormat:
    fmt = format_named("event/" + name)
    assert isinstance(fmt, EventFormat)
    return fmt


def test_one_input_by_hand():
    """int4 of 5 outputs: four words, whose places 0 are outputs 0 .. 3, place 1 of the first output 4.

    A weight of -8 is code 0 of its row's covering grid, 0 is code 8; places of padding hold 0.
    """
    weight = np.array([[0], [0], [-8], [0], [0]], np.float32)
    codes = event("int4").encode(weight).packed["codes"]
    assert codes.tolist() == [[0x88, 0, 0, 0, 0x08, 0, 0, 0, 0x00, 0, 0, 0, 0x08, 0, 0, 0]]


def test_order_by_hand():
    """8 bits, 4 places: sixteen words interleave 64 outputs, the last four words 16."""
    order = stored_order(70, 8)
    assert order[:8].tolist() == [0, 16, 32, 48, 1, 17, 33, 49]
    assert order[64:72].tolist() == [64, 68, 72, 76, 65, 69, 73, 77]
    assert sorted(order) == list(range(80))


@pytest.mark.parametrize(("rows", "low", "words"), [(1, 4, 4), (32, 4, 4), (33, 4, 8), (128, 4, 16), (300, 2, 20)])
def test_rows_are_padded_to_four_words(rows, low, words):
    assert row_words(rows, low) == words


def test_sizes_by_hand():
    """int4-g64 of 128 x 100: 100 rows of 64 bytes, 2 groups of 128 scales; uint3-g32 of 64 x 32: 16, 8 and 3 bytes."""
    assert bytes_for(event("int4-g64"), 128, 100) == 100 * 64 + 2 * 128 * 2
    assert bytes_for(event("uint3-g32"), 64, 32) == 32 * (16 + 8) + 64 * 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(256, 128), (1, 1), (5, 70), (300, 33), (129, 257)], ids=str)
def test_there_and_back(name, shape):
    fmt = event(name)
    weight = np.random.default_rng(shape).normal(0, 1, shape).astype(np.float32)
    dense = fmt.dense.encode(weight)
    encoded = fmt.from_dense(dense)
    back = fmt.to_dense(encoded)
    assert encoded.format == f"event/{name}" and back.format == name
    assert encoded.nbytes == bytes_for(fmt, *shape)
    assert {n: (p.shape, p.dtype) for n, p in encoded.packed.items()} == {
        n: (p.shape, p.dtype) for n, p in fmt.layout_for(*shape).items()
    }
    assert back.packed.keys() == dense.packed.keys()
    for tensor, values in dense.packed.items():
        np.testing.assert_array_equal(back.packed[tensor], values)
    np.testing.assert_array_equal(fmt.decode(encoded), fmt.dense.decode(dense))


@pytest.mark.parametrize("name", ["event/fp16", "event/", "event/int7", "event/sign", "event/event/int4"])
def test_other_names_are_refused(name):
    with pytest.raises(SlmcError, match="unknown format"):
        format_named(name)
