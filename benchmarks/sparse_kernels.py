"""Sparse products beside our own dense int4-g128, activations rounded to 8 bits: one process, alternating runs.

    python benchmarks/sparse_kernels.py --size 1024 2048 4096 --place dram
    python benchmarks/sparse_kernels.py --size 2048 --place dram l3 l2 --threads 1 2
    python benchmarks/sparse_kernels.py --size 2048 --place l2 --tokens 128 --activation-bits 32

`dense / it` is how many times as fast a format is as int4-g128: the median of the ratios of neighbouring runs.
`equal bytes` is what the bytes alone would give: those of int4-g128 over its own. timing.py says how times are taken.
"""

from __future__ import annotations

import argparse
import itertools
import statistics

import numpy as np
from kernels import ours
from timing import PLACES, Contestant, Setting, Tensors, entered, measure, table

from exporters.artifact.native_library import library
from exporters.formats.base import Encoded, Format
from exporters.formats.catalog import format_named
from exporters.formats.parts import Node
from exporters.ops.signatures import DOMAIN

FORMATS = ("2:4/int4-g128", "2:4/int4-g64", "4:8/int4-g128", "6:8/int4-g128", "4:8x16/int4-g128", "4:8x16/int4-g64",
           "2:8x16/int4-g128", "1:8/int8", "6:8/fp4-g16", "fp4-g16", "fp4-g32")  # fmt: skip


def example(fmt: Format, rng: np.random.Generator, size: int) -> Node:
    """The product of a few rows."""
    (term,) = fmt.product(fmt.encode(rng.standard_normal((64, size)).astype(np.float32))).terms
    return term.nodes[0]


def random_tensors(fmt: Format, rng: np.random.Generator, size: int) -> Encoded:
    """Random codes behind a few encoded rows' patterns, repeated."""
    (part,) = fmt.parts
    steps = part.values.steps(np.arange(2**fmt.bits))
    kept = size * part.kept / part.period
    scale = 1 / np.sqrt(np.square(steps).mean() * kept)  # so that a product keeps the size of x
    packed = {}
    for name, tensor in fmt.layout_for(size, size).items():
        if name == "scales":
            packed[name] = (rng.choice([-1, 1], tensor.shape) * scale).astype(np.float16)
        elif name == "patterns":
            packed[name] = np.resize(example(fmt, rng, size).packed[name], tensor.shape)
        else:
            packed[name] = rng.integers(0, 256, tensor.shape, dtype=np.uint8)
    return Encoded(fmt.name, (size, size), packed)


def sparse(name: str, activation_bits: int) -> Contestant:
    fmt = format_named(name)

    def weights(rng: np.random.Generator, size: int, _: int) -> Tensors:
        packed = random_tensors(fmt, rng, size).packed
        ordered = [(n, packed[n]) for n in ("codes", "scales")]
        if "patterns" in packed:
            ordered += [("high", packed["high"]) if "high" in packed else ("", np.zeros(0, np.uint8))]
            ordered += [("patterns", packed["patterns"])]
        return ordered

    def attributes(size: int, _: int) -> dict[str, int]:
        node = example(fmt, np.random.default_rng(0), size)
        return {**node.attributes, "N": size, "activation_bits": activation_bits}

    return Contestant(name, "SparseLinear", DOMAIN, weights, attributes)


def compare(names: list[str], setting: Setting, activation_bits: int, repeats: int) -> str:
    """The table of one setting; times are medians of CPU time (one thread) or of the wall's."""
    dense = ours(4, 128, activation_bits)
    contestants = [dense, *(sparse(name, activation_bits) for name in names)]
    with entered(contestants, setting) as entries:
        reads = measure(entries, repeats)
        first, size = entries[0], setting.K * setting.N
        rows = [
            [
                entry.contestant.name,
                f"{entry.us:.1f}",
                f"{8 * entry.bytes_per_product / size:.3f}",
                f"{entry.gbs:.1f}",
                f"{statistics.median(a / b for a, b in zip(first.times_ns, entry.times_ns, strict=True)):.2f}",
                f"{first.bytes_per_product / entry.bytes_per_product:.2f}",
            ]
            for entry in entries
        ]
    title = (
        f"{setting.K} x {setting.N}, {setting.tokens} token(s), {setting.threads} thread(s), weights in "
        f"{setting.place}, x of {activation_bits} bits; reads {reads.gbs:.1f} GB/s"
    )
    return table(title, ["format", "us", "bits/weight", "GB/s", "dense / it", "equal bytes"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--place", choices=PLACES, nargs="+", default=["dram"])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("--activation-bits", type=int, choices=[8, 32], default=8)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--isa", type=int, default=-1, help="0 portable, 1 AVX2, 2 with VNNI, 3 AVX-512; default: the best"
    )
    arguments = parser.parse_args()
    library().slmc_force_isa(arguments.isa)
    if any(len(format_named(n).parts) != 1 for n in arguments.formats):
        parser.error("a decomposed format is two products; name its parts")
    a = arguments
    for size, place, tokens, threads in itertools.product(a.size, a.place, a.tokens, a.threads):
        setting = Setting(size, size, place, tokens, threads)
        print(compare(a.formats, setting, a.activation_bits, a.repeats), flush=True)


if __name__ == "__main__":
    main()
