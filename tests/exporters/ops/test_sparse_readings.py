"""SparseLinear in torch, as an ONNX function and as a kernel, against plain numpy on what the format decodes to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rounding import rounded

from exporters.formats.catalog import format_named
from exporters.formats.decomposed import DecomposedFormat
from exporters.formats.nm import NmFormat
from exporters.ops.modules import stored_module

NAMES = ("2:4/int4-g64", "1:4/int8", "3:4/int6-g32", "4:8/int4-g128", "6:8/int4-g64", "1:8/int8", "7:8/int3-g256",
         "5:8/int2-g16", "2:8/int5", "4:8x16/int4-g64", "2:4x16/int8", "1:16/int4", "3:16/int4-g32", "8:16/int4-g64",
         "4:16x16/int6-g16", "15:16/int2", "6:8/fp4-g16", "4:8x16/fp4-g32", "fp4-g16", "fp4-g32",
         "2:4/int4-g16", "6:8/int8-g32", "3:8x16/int4-g64")  # fmt: skip
ATTRIBUTES = ("K", "N", "bits", "group", "kept", "period", "pattern_rows", "float4", "tile")


def case(name: str, rows: int, cols: int, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, int], np.ndarray]:
    """Packed tensors and attributes of a random matrix, and what it decodes to."""
    rng = np.random.default_rng(seed)
    fmt = format_named(name)
    encoded = fmt.encode(rng.standard_normal((rows, cols)).astype(np.float32))
    (node,) = fmt.product(encoded).terms[0].nodes
    assert node.operator == "SparseLinear"
    return dict(node.packed), dict(node.attributes), fmt.decode(encoded).astype(np.float64)


def of_row_0(text: str, *shape: int) -> np.ndarray:
    """Bytes written as hexadecimal, zeros behind."""
    given = np.frombuffer(bytes.fromhex(text), np.uint8)
    return np.concatenate([given, np.zeros(np.prod(shape) - given.size, np.uint8)]).reshape(shape)


def test_four_bit_floats_in_groups_of_sixteen_by_hand(reading):
    """Row 0 keeps inputs 3 and 21 (ranks 3 and 5 of 8, in two bits and one) as 12 and -2 halves, scales 0.5 and 2."""
    inputs = {
        "x": np.array([[127 if k in (3, 21) else 0 for k in range(24)]], np.float32),
        "codes": of_row_0("07 00 0a 00", 16, 8),
        "patterns": of_row_0("03 00 01 00" + "00" * 60 + "00 00 01 00", 16, 6),
        "scales": np.repeat(np.float16([0.5, 2]), 16).reshape(16, 2),
    }
    attributes = {"K": 24, "N": 16, "bits": 4, "group": 16, "kept": 1, "period": 8, "pattern_rows": 1, "float4": 1,
                  "activation_bits": 8, "tile": 16}  # fmt: skip
    assert reading("SparseLinear", inputs, attributes)[0].tolist() == [[(6 - 4) * 127] + [0] * 15]


def test_dense_four_bit_floats_by_hand(reading):
    """Codes 7 and 10 are 12 and -2 halves, scale 0.5: 6 and -1."""
    inputs = {"x": np.array([[1, 2], [0, 3]], np.float32), "codes": of_row_0("a7", 1, 1, 8),
              "scales": np.array([[0.5]], np.float16)}  # fmt: skip
    attributes = {"K": 2, "N": 1, "bits": 4, "group": 16, "kept": 8, "period": 8, "pattern_rows": 1, "float4": 1,
                  "activation_bits": 32, "tile": 16}  # fmt: skip
    assert reading("SparseLinear", inputs, attributes)[0].tolist() == [[4], [-3]]


@pytest.mark.parametrize("activation_bits", [32, 8])
@pytest.mark.parametrize("name", NAMES)
def test_every_reading_multiplies_alike(reading, name, activation_bits):
    for rows, cols in [(1, 1), (5, 70), (19, 129), (37, 640)]:
        packed, attributes, weight = case(name, rows, cols)
        rng = np.random.default_rng(1)
        for shape in [(1, 1, cols), (1, 0, cols), (11, cols), (1, 3, cols)]:
            x = rng.standard_normal(shape).astype(np.float32)
            seen = rounded(x, attributes["group"]) if activation_bits == 8 else x
            inputs = {"x": x, **packed}
            (y,) = reading("SparseLinear", inputs, attributes | {"activation_bits": activation_bits})
            assert y.shape == (*shape[:-1], rows) and y.dtype == np.float32
            expected = seen.astype(np.float64) @ weight.T
            allowed = 4e-6 * (np.abs(seen) @ np.abs(weight).T) + 1e-6
            assert (np.abs(y - expected) <= allowed).all(), np.abs(y - expected).max()
            if activation_bits == 8 and (rows, cols) != (37, 640):
                break


@pytest.mark.parametrize("name", ["2:4/int4-g64", "4:8x16/int4-g64", "fp4-g16", "1:8/int8+6:8/fp4-g16"])
def test_modules_compute_what_their_format_decodes_to(name):
    rng = np.random.default_rng(0)
    fmt = format_named(name)
    encoded = fmt.encode(rng.standard_normal((19, 70)).astype(np.float32))
    x = rng.standard_normal((2, 70)).astype(np.float32)
    y = stored_module(encoded, "linear")(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(y, x @ fmt.decode(encoded).T, rtol=1e-5, atol=1e-5)


def test_parts_of_a_decomposed_format_are_its_own():
    fmt = format_named("1:8/int8+6:8/fp4-g16")
    assert isinstance(fmt, DecomposedFormat) and isinstance(fmt.outliers, NmFormat)
    assert (fmt.outliers.name, fmt.inliers.name) == ("1:8/int8", "6:8/fp4-g16")
