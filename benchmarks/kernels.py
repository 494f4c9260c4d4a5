"""QLinear beside com.microsoft.MatMulNBits and fp32 MatMul: every setting, one or two threads, in L2, L3 and DRAM.

    python benchmarks/kernels.py --quick
    python benchmarks/kernels.py --size 1024 2048 4096 --place dram --tokens 1 --threads 1 2
    python benchmarks/kernels.py --size 2048 --place l2 --tokens 128 --only int4-g128 "4b b128"

Everything runs in one process and alternates, so a busy machine blurs all alike; times are medians per product
(timing.py says how they are taken). `of reads` is the bytes of the weights per time over the read bandwidth measured
meanwhile; `stock / it` the fastest MatMulNBits at the same bits over this; `per byte` our time per byte of weights over
that of our int4-g128 with the same activations. MatMulNBits with 2 or 8 bits and accuracy level 0 is left out: it
unpacks the whole matrix at every call.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable

import numpy as np
from timing import PLACES, Contestant, Entry, Reads, Setting, Tensors, entered, measure, table

from exporters.artifact.native_library import library
from exporters.formats.tiles import TILE_ROWS
from exporters.formats.trits import TRITS
from exporters.ops.signatures import DOMAIN

CODE_BITS = {1: (1, 0), 2: (2, 0), 3: (2, 1), 4: (4, 0), 5: (4, 1), 6: (4, 2), 8: (8, 0)}
OURS = ("QLinear", "TableLinear")
QUICK = ("int", "4b b128 acc4", "4b b256 acc4", "2b b128", "8b b128", "fp32")


def size_of_codes(bits: int) -> float:
    """Root mean square of code - 2^(bits-1), codes uniform."""
    return math.sqrt((4**bits - 1) / 12 + 0.25)


def integer_tensors(bits: int, group: int, zeros: bool = False) -> Callable[[np.random.Generator, int, int], Tensors]:
    """Random codes; scales such that a product keeps the size of x."""

    def make(rng: np.random.Generator, K: int, N: int) -> Tensors:
        low, high = CODE_BITS[bits]
        groups = -(-K // group)

        def tensor(width: int) -> np.ndarray:
            return np.frombuffer(rng.bytes(N * groups * group * width // 8), np.uint8).reshape(N, groups, -1)

        scale = rng.choice([-1, 1], (N, groups)) / (size_of_codes(bits) * math.sqrt(K))
        packed = [("codes", tensor(low)), ("scales", scale.astype(np.float16))]
        if high or zeros:
            packed.append(("high", tensor(high)) if high else ("", np.zeros(0, np.uint8)))
        if zeros:
            packed.append(("zeros", np.full((N, groups), 2 ** (bits - 1), np.uint8)))
        return packed

    return make


def ours(bits: int, group: int, activation_bits: int, zeros: bool = False, tile: int = TILE_ROWS) -> Contestant:
    return Contestant(
        f"{'uint' if zeros else 'int'}{bits}-g{group} x{activation_bits}{'' if tile else ', row by row'}",
        "QLinear",
        DOMAIN,
        integer_tensors(bits, group, zeros),
        lambda K, N: {"K": K, "N": N, "bits": bits, "group": group, "activation_bits": activation_bits, "tile": tile},
    )


def of_table(bits: int, group: int, activation_bits: int) -> Contestant:
    """Codes that stand for even steps of a table, which cost as much as any."""

    def make(rng: np.random.Generator, K: int, N: int) -> Tensors:
        step = 256 // 2**bits
        (codes, scales, *high) = integer_tensors(bits, group)(rng, K, N)
        steps = np.arange(-128, 128, step, dtype=np.int8)
        smaller = ("scales", (scales[1] / np.float16(step)).astype(np.float16))
        return [codes, smaller, *(high or [("", np.zeros(0, np.uint8))]), ("steps", steps)]

    return Contestant(
        f"nl{bits}-g{group} x{activation_bits}",
        "TableLinear",
        DOMAIN,
        make,
        lambda K, N: {
            "K": K, "N": N, "bits": bits, "group": group, "activation_bits": activation_bits, "tile": TILE_ROWS,
        },
    )  # fmt: skip


def matmul_nbits(bits: int, block: int, accuracy: int) -> Contestant:
    def weights(rng: np.random.Generator, K: int, N: int) -> Tensors:
        (_, codes), (_, scales) = integer_tensors(bits, block)(rng, K, N)
        return [("codes", codes), ("scales", scales.astype(np.float32))]

    return Contestant(
        f"MatMulNBits {bits}b b{block} acc{accuracy}",
        "MatMulNBits",
        "com.microsoft",
        weights,
        lambda K, N: {"K": K, "N": N, "bits": bits, "block_size": block, "accuracy_level": accuracy},
    )


def dense(rng: np.random.Generator, K: int, N: int) -> Tensors:
    return [("w", rng.standard_normal((K, N), np.float32) / np.float32(math.sqrt(K)))]


def half(rng: np.random.Generator, K: int, N: int) -> Tensors:
    return [("w", dense(rng, N, K)[0][1].astype(np.float16))]


def trits(rng: np.random.Generator, K: int, N: int) -> Tensors:
    """Random digits; a scale such that a product keeps the size of x."""
    layout = TRITS.layout_for(N, K)
    codes = np.frombuffer(rng.bytes(layout["codes"].nbytes), np.uint8).reshape(layout["codes"].shape)
    return [("codes", codes), ("scale", np.array([math.sqrt(1.5 / K)], np.float32))]


def nothing(K: int, N: int) -> dict[str, int]:
    return {}


CONTESTANTS = [
    *(ours(bits, 128, activation) for activation in (8, 32) for bits in (4, 1, 2, 3, 5, 6, 8)),
    *(of_table(bits, 128, activation) for activation in (8, 32) for bits in (4, 3)),
    *(ours(4, 32, activation) for activation in (8, 32)),
    *(ours(4, 128, activation, zeros=True) for activation in (8, 32)),
    *(ours(4, 128, activation, tile=0) for activation in (8, 32)),
    Contestant("half", "HalfLinear", DOMAIN, half, nothing),
    Contestant("ternary x8", "TernaryLinear", DOMAIN, trits, lambda K, N: {"K": K, "N": N}),
    *(matmul_nbits(4, block, accuracy) for accuracy in (4, 0) for block in (32, 64, 128, 256)),
    *(matmul_nbits(2, block, 4) for block in (32, 64, 128)),
    *(matmul_nbits(8, block, 4) for block in (32, 64, 128, 256)),
    Contestant("fp32 MatMul", "MatMul", "", dense, nothing),
]


def bits_of(contestant: Contestant) -> int:
    """Of a weight as stored; 0 where it is no integer."""
    return contestant.attributes(1, 1).get("bits", 0)


def best_stock(entries: list[Entry], bits: int) -> float:
    return min(
        (e.us for e in entries if e.contestant.operator == "MatMulNBits" and bits_of(e.contestant) == bits),
        default=math.nan,
    )


def per_byte(entry: Entry, entries: list[Entry]) -> float:
    """Over int4-g128 with the same activations; not a number for other operators."""
    twin = f"int4-g128 {entry.contestant.name.partition(' ')[2].partition(',')[0]}"
    bases = [e for e in entries if e.contestant.name == twin and entry.contestant.operator in OURS]
    return bases[0].gbs / entry.gbs if bases else math.nan


def report(entries: list[Entry], reads: Reads) -> str:
    setting = entries[0].setting
    rows = []
    for e in entries:
        flops = 2 * setting.K * setting.N * setting.tokens / e.us / 1e3
        figures = [
            f"{e.us:.2f}",
            f"{np.percentile(e.times_ns, 10) / 1e3:.2f}",
            f"{e.gbs:.1f}",
            f"{e.gbs / reads.gbs:.0%}",
            f"{flops:.0f}",
            f"{best_stock(entries, bits_of(e.contestant)) / e.us:.2f}",
            f"{per_byte(e, entries):.2f}",
        ]
        rows.append([e.contestant.name, *(figure.replace("nan", "") for figure in figures)])
    title = (
        f"{setting.K} x {setting.N}, {setting.tokens} token(s), {setting.threads} thread(s), weights in "
        f"{setting.place}; reads {reads.gbs:.1f} GB/s"
    )
    return table(title, ["product", "us", "p10", "GB/s", "of reads", "GFLOP/s", "stock / it", "per byte"], rows)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--place", choices=PLACES, nargs="+", default=list(PLACES))
    parser.add_argument("--tokens", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", default=[""], help="names that contain one of these")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--isa", type=int, default=-1, help="kernels of this level at most, 0 is portable; default: the best"
    )
    parser.add_argument("--quick", action="store_true", help="two minutes: size 1024, fewer contestants and repeats")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.size, arguments.repeats, arguments.only = [1024], 9, list(QUICK)
    return arguments


def main() -> None:
    arguments = parsed()
    library().slmc_force_isa(arguments.isa)
    contestants = [c for c in CONTESTANTS if any(part in c.name for part in arguments.only)]
    settings = itertools.product(arguments.size, arguments.place, arguments.tokens, arguments.threads)
    for size, place, tokens, threads in settings:
        with entered(contestants, Setting(size, size, place, tokens, threads)) as entries:
            reads = measure(entries, arguments.repeats)
            print(report(entries, reads), flush=True)


if __name__ == "__main__":
    main()
