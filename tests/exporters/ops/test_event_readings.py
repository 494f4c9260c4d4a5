"""EventLinear says the same in torch, as an ONNX function and as a native kernel, whatever the share of zeros."""

from __future__ import annotations

import numpy as np
import pytest
from rounding import rounded

from exporters.formats.catalog import format_named
from exporters.formats.event import EventFormat

NAMES = ["int2-g64", "int3-g32", "int4-g32", "int5-g64", "int6-g16", "int8", "int4", "uint2-g16", "uint3-g32",
         "uint4-g128", "uint5-g64", "uint8-g256"]  # fmt: skip
# (N, K): a last block of few words, whole blocks alone, both, and neither full groups
SHAPES = [(5, 7), (256, 64), (300, 129), (65, 300)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("activation_bits", [32, 8])
def test_sparse_inputs(reading, name, shape, activation_bits):
    fmt = format_named(f"event/{name}")
    assert isinstance(fmt, EventFormat)
    rng = np.random.default_rng(shape)
    encoded = fmt.encode(rng.normal(0, 1, shape).astype(np.float32))
    weight = fmt.decode(encoded).astype(np.float64)
    group = fmt.dense.group_size(shape[1])
    attributes = {"K": shape[1], "N": shape[0], "bits": fmt.bits, "group": group, "activation_bits": activation_bits}
    x = (rng.random((1, 3, shape[1])) < 0.3) * rng.normal(0, 1, (1, 3, shape[1])).astype(np.float32) ** 2
    x[0, 1] = x[0, 1] > 0
    x = x.astype(np.float32)
    (y,) = reading("EventLinear", {"x": x, **encoded.packed}, attributes)
    if activation_bits == 8:
        x = rounded(x, group)
    assert y.shape == (1, 3, shape[0]) and y.dtype == np.float32
    assert (np.abs(y - x @ weight.T) <= 1e-6 * x.sum(-1, keepdims=True) * np.abs(weight).max()).all()
