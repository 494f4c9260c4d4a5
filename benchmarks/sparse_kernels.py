"""Sparse products beside our own dense int4-g128, activations rounded to 8 bits: one process, alternating runs.

    python benchmarks/sparse_kernels.py --size 1024 2048 4096 --where dram
    python benchmarks/sparse_kernels.py --size 2048 --where dram l3 l2 --threads 1 2
    python benchmarks/sparse_kernels.py --size 2048 --where l2 --tokens 128 --activation-bits 32

Chains of square products as in kernels.py, whose helpers this uses; `dense / it` is how many times as fast it is as
int4-g128. `equal bytes` is the speed that the bytes alone would give: bytes of int4-g128 over its own.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import kernels
import numpy as np
import onnxruntime as ort
from kernels import Contestant

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from exporters.formats.decomposed import DecomposedFormat
from exporters.formats.float4 import Float4Format
from exporters.formats.nm import NmFormat
from exporters.formats.units import padded_columns
from exporters.native_library import library, library_path
from exporters.ops.signatures import DOMAIN

FORMATS = ("2:4/int4-g128", "2:4/int4-g64", "4:8/int4-g128", "6:8/int4-g128", "4:8x16/int4-g128", "4:8x16/int4-g64",
           "2:8x16/int4-g128", "1:8/int8", "6:8/fp4-g16", "fp4-g16", "fp4-g32")  # fmt: skip
BASELINE = "int4-g128"


def random_planes(fmt: NmFormat | Float4Format, rng: np.random.Generator, size: int) -> Encoded:
    """Random codes behind a few encoded rows' patterns, repeated."""
    values = fmt.values if isinstance(fmt, NmFormat) else fmt
    steps = values.steps(np.arange(2**fmt.bits))
    kept = size * fmt.kept / fmt.period if isinstance(fmt, NmFormat) else size
    scale = 1 / np.sqrt(np.square(steps).mean() * kept)  # so that a product keeps the size of x
    planes = {}
    for name, plane in fmt.planes_for(size, size).items():
        if name == "scales":
            planes[name] = (rng.choice([-1, 1], plane.shape) * scale).astype(np.float16)
        elif name == "patterns":
            example = fmt.encode(rng.standard_normal((64, size)).astype(np.float32)).planes[name]
            planes[name] = np.resize(example, plane.shape)
        else:
            planes[name] = rng.integers(0, 256, plane.shape, dtype=np.uint8)
    return Encoded(fmt.name, (size, size), planes)


def sparse(name: str, activation_bits: int) -> Contestant:
    fmt = format_named(name)
    assert isinstance(fmt, NmFormat | Float4Format)
    pattern = (fmt.kept, fmt.period, fmt.pattern_rows) if isinstance(fmt, NmFormat) else (8, 8, 1)
    values = fmt.values if isinstance(fmt, NmFormat) else fmt

    def weights(rng: np.random.Generator, size: int) -> list[tuple[str, np.ndarray]]:
        planes = random_planes(fmt, rng, size).planes
        ordered = [(n, planes[n]) for n in ("codes", "scales")]
        if "patterns" in planes:
            ordered += [("high", planes["high"]) if "high" in planes else ("", np.zeros(0, np.uint8))]
            ordered += [("patterns", planes["patterns"])]
        return ordered

    def attributes(size: int) -> dict[str, int]:
        return {
            "K": size, "N": size, "bits": fmt.bits, "group": fmt.group or padded_columns(size), "kept": pattern[0],
            "period": pattern[1], "pattern_rows": pattern[2], "float4": int(isinstance(values, Float4Format)),
            "activation_bits": activation_bits,
        }  # fmt: skip

    return Contestant(name, "SparseLinear", DOMAIN, weights, attributes)


def dense(activation_bits: int) -> Contestant:
    return kernels.ours(4, 128, activation_bits)


def entered(
    contestant: Contestant, size: int, where: str, tokens: int, threads: int
) -> tuple[Callable[[], None], int, int]:
    """How to run its chain, the bytes of one product, the number of products."""
    model, each, products = kernels.chain(contestant, size, where, 0)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(library_path()))
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((1, tokens, size)).astype(np.float32)
    (y,) = session.run(None, {"x0": x})
    if not np.isfinite(y).all():
        raise RuntimeError(f"{contestant.name}: outputs are not finite")
    binding = session.io_binding()
    binding.bind_cpu_input("x0", x)
    binding.bind_ortvalue_output(f"x{products}", ort.OrtValue.ortvalue_from_numpy(y))
    return lambda: session.run_with_iobinding(binding), each, products


def compare(names: list[str], size: int, where: str, arguments: argparse.Namespace, tokens: int, threads: int) -> None:
    contestants = [dense(arguments.activation_bits), *(sparse(n, arguments.activation_bits) for n in names)]
    entries = [entered(c, size, where, tokens, threads) for c in contestants]
    times: list[list[float]] = [[] for _ in entries]
    clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns
    for _ in range(arguments.repeats):
        for i, (run, _, products) in enumerate(entries):
            if where == "l2":
                run()  # brings back what the others pushed out
            start = clock()
            run()
            times[i].append((clock() - start) / products / 1e3)
    print(f"\n{size} x {size}, {tokens} token(s), {threads} thread(s), weights in {where}, x of "
          f"{arguments.activation_bits} bits")  # fmt: skip
    print(f"{'':20}{'us':>9}{'p10':>9}{'bits/w':>8}{'GB/s':>7}{'dense / it':>12}{'equal bytes':>13}")
    us = [statistics.median(t) for t in times]
    for contestant, median, some, (_, each, _) in zip(contestants, us, times, entries, strict=True):
        print(
            f"{contestant.name if contestant is not contestants[0] else BASELINE:20}{median:9.2f}"
            f"{float(np.percentile(some, 10)):9.2f}{8 * each / size**2:8.3f}{each / median / 1e3:7.1f}"
            f"{us[0] / median:12.2f}{entries[0][1] / each:13.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--where", choices=["l2", "l3", "dram"], nargs="+", default=["dram"])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("--activation-bits", type=int, choices=[8, 32], default=8)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--isa", type=int, default=-1, help="0 portable, 1 AVX2, 2 AVX-512; default: the best")
    arguments = parser.parse_args()
    library().slmc_force_isa(arguments.isa)
    if any(isinstance(format_named(n), DecomposedFormat) for n in arguments.formats):
        parser.error("a decomposed format is two products; name its parts")
    for size in arguments.size:
        for where in arguments.where:
            for tokens in arguments.tokens:
                for threads in arguments.threads:
                    compare(arguments.formats, size, where, arguments, tokens, threads)


if __name__ == "__main__":
    main()
