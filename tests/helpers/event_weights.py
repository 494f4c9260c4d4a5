"""Random matrices of the event formats and their products, for tests of the kernels."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from one_node import session

from exporters.formats.catalog import format_named
from exporters.formats.event import EventFormat

INPUTS = ("x", "codes", "scales", "high", "zeros")
NAMES = ("int2-g64", "int3-g32", "int4-g32", "int4-g128", "int5-g64", "int6-g16", "int8", "int4", "int6",
         "uint2-g16", "uint3-g32", "uint4-g128", "uint5-g64", "uint8-g256")  # fmt: skip


class Weights:
    """A random matrix: its packed tensors as stored, the node's attributes, and w as float64 [N, K]."""

    def __init__(self, N: int, K: int, name: str):
        fmt = format_named(f"event/{name}")
        assert isinstance(fmt, EventFormat)
        encoded = fmt.encode(np.random.default_rng([N, K]).standard_normal((N, K)).astype(np.float32))
        self.packed = dict(encoded.packed)
        self.attributes = {"K": K, "N": N, "bits": fmt.bits, "group": fmt.dense.group_size(K)}
        self.w = fmt.decode(encoded).astype(np.float64)


def event_session(weights: Weights, threads: int = 1, constant: bool = True, **changed) -> ort.InferenceSession:
    """constant: the packed tensors lie in the model; otherwise they are its inputs, as x is."""
    x = {"x": np.zeros((1, 1), np.float32)}
    given, held = (x, weights.packed) if constant else (x | weights.packed, {})
    return session("EventLinear", given, held, INPUTS, threads=threads, **weights.attributes | changed)


def product(x: np.ndarray, weights: Weights, **options) -> np.ndarray:
    return event_session(weights, **options).run(None, {"x": x})[0]


def inputs(kind: str, active: float, *shape: int) -> np.ndarray:
    """Zeros but for a share of entries: one number everywhere, or with both signs, or normal ones."""
    rng = np.random.default_rng([*shape, round(100 * active)])
    if kind == "real":
        values = rng.standard_normal(shape)
    else:
        values = -2.5 * (rng.choice([-1, 1], shape) if kind == "ternary" else np.ones(shape))
    return ((rng.random(shape) < active) * values).astype(np.float32)
