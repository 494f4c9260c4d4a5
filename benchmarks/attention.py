"""Microseconds of one attention node, by cached tokens: `python benchmarks/attention.py [LIBRARY...]`.

Caches are bound in place, as artifacts' sessions bind them. Several libraries take turns; medians of all turns.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from exporters.artifact.native_library import library_path
from exporters.ops.signatures import DOMAIN, VERSION

HEADS, GROUPS, WIDTH = 9, 3, 64
"""Of SmolLM2-135M."""
CASES = [(1, 16), (1, 512), (1, 2048), (512, 0), (512, 1536)]
"""(new tokens, tokens before them)."""
TURNS, SECONDS = 7, 0.15


@dataclass(frozen=True)
class Node:
    """One attention node over a cache of `length` tokens, ready to be called."""

    session: Any
    binding: Any

    def us(self) -> float:
        """Median time of a call, over SECONDS of calls."""
        times, end = [], time.perf_counter() + SECONDS
        while time.perf_counter() < end or len(times) < 3:
            start = time.perf_counter()
            self.session.run_with_iobinding(self.binding)
            times.append(time.perf_counter() - start)
        return float(np.median(times)) * 1e6


def model(codes: bool) -> bytes:
    kind = TensorProto.INT8 if codes else TensorProto.FLOAT
    caches = ["keys", "values", *(["key_scales", "value_scales"] if codes else [])]
    node = helper.make_node(
        "CachedAttentionInt8" if codes else "CachedAttention",
        ["q", "k", "v", *caches, "position"],
        ["y", *(f"{name}_out" for name in caches)],
        domain=DOMAIN,
        heads=HEADS,
        theta=1e5,
        rotate=1.0,
    )
    kinds = dict.fromkeys(("q", "k", "v", "y"), TensorProto.FLOAT) | {"position": TensorProto.INT64}
    kinds |= {name: TensorProto.FLOAT if "scales" in name else kind for name in [*caches, *node.output[1:]]}
    graph = helper.make_graph(
        [node],
        "attention",
        [helper.make_tensor_value_info(n, kinds[n], None) for n in node.input],
        [helper.make_tensor_value_info(n, kinds[n], None) for n in node.output],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def node(library: str, codes: bool, tokens: int, before: int) -> Node:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.register_custom_ops_library(library)
    session = ort.InferenceSession(model(codes), options, providers=["CPUExecutionProvider"])
    rng, length = np.random.default_rng(0), before + tokens
    binding = session.io_binding()
    for name, heads in (("q", HEADS), ("k", GROUPS), ("v", GROUPS)):
        new = rng.normal(0, 1, (1, tokens, heads * WIDTH)).astype(np.float32)
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(new))
    binding.bind_ortvalue_input("position", ort.OrtValue.ortvalue_from_numpy(np.array([[before]])))
    for name in ("keys", "values"):
        cache = rng.integers(-127, 128, (1, GROUPS, length, WIDTH))
        bind(binding, name, cache.astype(np.int8) if codes else (cache / 64).astype(np.float32))
        if codes:
            scales = rng.uniform(0.01, 0.03, (1, GROUPS, length)).astype(np.float32)
            bind(binding, f"{name.removesuffix('s')}_scales", scales)
    binding.bind_output("y")
    return Node(session, binding)


def bind(binding: Any, name: str, array: np.ndarray) -> None:
    value = ort.OrtValue.ortvalue_from_numpy(array)
    binding.bind_ortvalue_input(name, value)
    binding.bind_ortvalue_output(f"{name}_out", value)


def main() -> None:
    libraries = sys.argv[1:] or [str(library_path())]
    print("cache    new  before  " + "  ".join(f"{name[-28:]:>28}" for name in libraries))
    for codes in (True, False):
        for tokens, before in CASES:
            nodes = [node(library, codes, tokens, before) for library in libraries]
            turns = [[one.us() for one in nodes] for _ in range(TURNS)]
            medians = np.median(turns, axis=0)
            print(
                f"{'int8' if codes else 'float':5} {tokens:6} {before:7}  "
                + "  ".join(f"{us:25.1f} us" for us in medians),
                flush=True,
            )


if __name__ == "__main__":
    main()
