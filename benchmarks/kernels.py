"""QLinear beside com.microsoft.MatMulNBits and fp32 MatMul: CPU time on one thread, everything in one process.

    python benchmarks/kernels.py --size 1024 2048 4096 --where dram --tokens 1
    python benchmarks/kernels.py --size 2048 --where l2 --tokens 128 --only int4-g128

A model is a chain of products with square matrices. `dram` and `l3` give every product weights of its own (192 and 12
MiB in all), `l2` the same weights to all. Runs of all contestants alternate; times are medians per product, so a busy
machine blurs all alike. GB/s counts codes, scales and zeros once per product; the read bandwidth is numpy's maximum
over 256 MiB in the same process, alternating with the rest.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporters.native_library import library, library_path
from exporters.ops.signatures import DOMAIN

TOTAL_BYTES = {"dram": 192 << 20, "l3": 12 << 20}
MIN_PRODUCTS, MAX_PRODUCTS = 8, 600
PLANE_BITS = {2: (2, 0), 3: (2, 1), 4: (4, 0), 5: (4, 1), 6: (4, 2), 8: (8, 0)}


@dataclass(frozen=True)
class Contestant:
    """One kind of node: `weights(rng, size)` are its initializers after x, `attributes(size)` the rest."""

    name: str
    operator: str
    domain: str
    weights: Callable[[np.random.Generator, int], list[tuple[str, np.ndarray]]]
    attributes: Callable[[int], dict[str, int]]


@dataclass
class Entry:
    contestant: Contestant
    run: Callable[[], None]
    bytes_per_product: int
    products: int
    where: str
    times: list[float] = field(default_factory=list)


def size_of_codes(bits: int) -> float:
    """Root mean square of code - 2^(bits-1), codes uniform."""
    return float(np.sqrt((4**bits - 1) / 12 + 0.25))


def integer_planes(bits: int, group: int, zeros: bool) -> Callable[..., list[tuple[str, np.ndarray]]]:
    """Random codes; scales such that a product keeps the size of x."""

    def make(rng: np.random.Generator, size: int) -> list[tuple[str, np.ndarray]]:
        low, high = PLANE_BITS[bits]
        groups = -(-size // group)
        random = lambda b: np.frombuffer(rng.bytes(size * groups * group * b // 8), np.uint8).reshape(size, groups, -1)  # noqa: E731
        scale = rng.choice([-1, 1], (size, groups)) / (size_of_codes(bits) * np.sqrt(size))
        planes = [("codes", random(low)), ("scales", scale.astype(np.float16))]
        if high or zeros:
            planes.append(("high", random(high)) if high else ("", np.zeros(0, np.uint8)))
        if zeros:
            planes.append(("zeros", np.full((size, groups), 2 ** (bits - 1), np.uint8)))
        return planes

    return make


def ours(bits: int, group: int, activation_bits: int, zeros: bool = False) -> Contestant:
    name = f"{'uint' if zeros else 'int'}{bits}-g{group}"
    return Contestant(
        f"{name} x{activation_bits}",
        "QLinear",
        DOMAIN,
        integer_planes(bits, group, zeros),
        lambda size: {"K": size, "N": size, "bits": bits, "group": group, "activation_bits": activation_bits},
    )


def matmul_nbits(bits: int, block: int, accuracy: int) -> Contestant:
    def weights(rng: np.random.Generator, size: int) -> list[tuple[str, np.ndarray]]:
        (_, codes), (_, scales) = integer_planes(bits, block, False)(rng, size)
        return [("codes", codes), ("scales", scales.astype(np.float32))]

    return Contestant(
        f"MatMulNBits {bits}b b{block} acc{accuracy}",
        "MatMulNBits",
        "com.microsoft",
        weights,
        lambda size: {"K": size, "N": size, "bits": bits, "block_size": block, "accuracy_level": accuracy},
    )


def dense(rng: np.random.Generator, size: int) -> list[tuple[str, np.ndarray]]:
    return [("w", (rng.standard_normal((size, size), np.float32) / np.float32(np.sqrt(size))))]


def half(rng: np.random.Generator, size: int) -> list[tuple[str, np.ndarray]]:
    return [("w", dense(rng, size)[0][1].astype(np.float16))]


CONTESTANTS = [
    *(ours(4, group, activation) for activation in (8, 32) for group in (128, 32)),
    *(ours(bits, 128, activation) for activation in (8, 32) for bits in (2, 3, 5, 6, 8)),
    *(ours(4, 128, activation, zeros=True) for activation in (8, 32)),
    Contestant("half", "HalfLinear", DOMAIN, half, lambda size: {}),
    *(matmul_nbits(4, block, accuracy) for block in (128, 32) for accuracy in (4, 0)),
    *(matmul_nbits(bits, 128, 4) for bits in (2, 8)),
    Contestant("fp32 MatMul", "MatMul", "", dense, lambda size: {}),
]


def chain(contestant: Contestant, size: int, where: str, seed: int) -> tuple[ModelProto, int, int]:
    """The model, the bytes of one product's weights, the number of products."""
    rng = np.random.default_rng(seed)
    first = contestant.weights(rng, size)
    each = sum(array.nbytes for _, array in first)
    products = 64 if where == "l2" else min(max(TOTAL_BYTES[where] // each, MIN_PRODUCTS), MAX_PRODUCTS)
    nodes, initializers = [], []
    for i in range(products):
        own = 0 if where == "l2" else i
        if own == i:
            arrays = first if i == 0 else contestant.weights(rng, size)
            initializers += [numpy_helper.from_array(array, f"{name}{i}") for name, array in arrays if name]
        inputs = [f"x{i}", *(f"{name}{own}" if name else "" for name, _ in first)]
        attributes = contestant.attributes(size)
        nodes.append(
            helper.make_node(contestant.operator, inputs, [f"x{i + 1}"], domain=contestant.domain, **attributes)
        )
    io = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, "T", size]) for n in ("x0", f"x{products}")]
    graph = helper.make_graph(nodes, "chain", io[:1], io[1:], initializers)
    imports = [helper.make_opsetid(d, v) for d, v in (("", 18), (DOMAIN, 1), ("com.microsoft", 1))]
    return helper.make_model(graph, opset_imports=imports, ir_version=9), each, products


def entered(contestant: Contestant, size: int, where: str, tokens: int) -> Entry:
    model, each, products = chain(contestant, size, where, 0)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.register_custom_ops_library(str(library_path()))
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((1, tokens, size)).astype(np.float32)

    (y,) = session.run(None, {"x0": x})
    if not 0.01 < float(np.std(y)) < 100:
        raise RuntimeError(f"{contestant.name}: outputs ran away, standard deviation {np.std(y)}")
    binding = session.io_binding()
    binding.bind_cpu_input("x0", x)
    binding.bind_ortvalue_output(f"x{products}", ort.OrtValue.ortvalue_from_numpy(y))

    def run() -> None:
        session.run_with_iobinding(binding)

    return Entry(contestant, run, each, products, where)


def measure(entries: list[Entry], repeats: int) -> float:
    """Fills in the times per product; returns the read bandwidth in GB/s."""
    buffer = np.ones(256 << 20, np.int8)
    buffer.max()
    reads = []
    for entry in entries:
        entry.run()
    for _ in range(repeats):
        for entry in entries:
            if entry.where == "l2":
                entry.run()  # brings back what the others pushed out
            start = time.thread_time_ns()
            entry.run()
            entry.times.append((time.thread_time_ns() - start) / entry.products)
        start = time.thread_time_ns()
        buffer.max()
        reads.append(buffer.nbytes / (time.thread_time_ns() - start))
    return statistics.median(reads)


def report(entries: list[Entry], size: int, where: str, tokens: int, bandwidth: float) -> None:
    stock = [e for e in entries if e.contestant.operator == "MatMulNBits" and " 4b " in e.contestant.name]
    best = min((statistics.median(e.times) for e in stock), default=float("nan"))
    print(f"\n{size} x {size}, {tokens} token(s), weights in {where}; reads {bandwidth:.1f} GB/s")
    print(f"{'':28}{'us':>9}{'p10':>9}{'GB/s':>8}{'of reads':>10}{'GFLOP/s':>9}{'best 4b MatMulNBits / it':>26}")
    for entry in entries:
        us = statistics.median(entry.times) / 1e3
        low = float(np.percentile(entry.times, 10)) / 1e3
        rate = entry.bytes_per_product / us / 1e3
        flops = 2 * size * size * tokens / us / 1e3
        print(
            f"{entry.contestant.name:28}{us:9.2f}{low:9.2f}{rate:8.1f}{rate / bandwidth:10.0%}{flops:9.0f}"
            f"{best / 1e3 / us:26.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--where", choices=["l2", "l3", "dram"], nargs="+", default=["dram"])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", default=[""], help="names that contain one of these")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--isa", type=int, default=-1, help="0 portable, 1 AVX2, 2 AVX-512; default: the best")
    arguments = parser.parse_args()
    library().slmc_force_isa(arguments.isa)
    contestants = [c for c in CONTESTANTS if any(part in c.name for part in arguments.only)]
    for size in arguments.size:
        for where in arguments.where:
            for tokens in arguments.tokens:
                entries = [entered(c, size, where, tokens) for c in contestants]
                report(entries, size, where, tokens, measure(entries, arguments.repeats))


if __name__ == "__main__":
    main()
