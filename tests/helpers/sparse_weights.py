"""Random matrices of the sparse and four-bit float formats and their products, for tests of the kernels."""

from __future__ import annotations

import numpy as np
from one_node import session

from exporters.formats.catalog import format_named
from exporters.formats.float4 import Float4Format
from exporters.formats.nm import NmFormat

ORDER = ["x", "codes", "scales", "high", "patterns"]
NAMES = ("2:4/int4-g64", "2:4/int4-g128", "1:4/int8", "3:4/int6-g32", "3:4/int4", "4:8/int4-g128", "4:8/int8-g16",
         "4:8/int8-g64", "6:8/int4-g64", "6:8/int4-g256", "1:8/int8", "1:8/int4-g64", "2:8/int4-g128", "3:8/int4-g64",
         "5:8/int8-g64", "7:8/int4-g128", "4:8x16/int3-g64", "2:8x16/int2-g128", "8:16x16/int5-g64", "6:8x16/int6",
         "7:8/int3-g256", "5:8/int2-g16", "3:8/int4-g32", "4:8x16/int4-g64", "4:8x16/int4-g32", "2:4x16/int8",
         "6:8x16/int4-g128", "1:8x16/int8-g16", "1:16/int4", "3:16/int4-g32", "8:16/int4-g64", "4:16x16/int6-g16",
         "8:16x16/int4-g16", "15:16/int2", "6:8/fp4-g16", "4:8x16/fp4-g32", "fp4-g16", "fp4-g32", "2:4/int4-g16",
         "2:4/fp4-g32", "7:8/int8-g32", "6:8/int8-g16", "3:8x16/int4-g64", "3:4x16/fp4-g16")  # fmt: skip


class Weights:
    """A matrix as a graph holds it, or with `tiles` false row by row: packed tensors, attributes, and w as float64."""

    def __init__(self, name: str, N: int, K: int, tiles: bool = True):
        fmt = format_named(name)
        assert isinstance(fmt, NmFormat | Float4Format)
        weight = np.random.default_rng(N * K).standard_normal((N, K)).astype(np.float32)
        encoded = fmt.encode(weight)
        self.w = fmt.values_of(encoded).astype(np.float64)  # the exponent is a node of its own
        ((node,),) = (term.nodes for term in fmt.product(encoded).terms)
        self.packed, self.attributes = dict(node.packed), dict(node.attributes)
        if not tiles and isinstance(fmt, NmFormat):
            self.packed, self.attributes["tile"] = dict(encoded.packed), 1


def product(x: np.ndarray, weights: Weights, threads: int = 1, **attributes) -> np.ndarray:
    model = session(
        "SparseLinear", {"x": x}, weights.packed, ORDER, threads=threads, **weights.attributes, **attributes
    )
    return model.run(None, {"x": x})[0]
