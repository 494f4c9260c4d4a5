"""EventLinear beside our dense QLinear with 8-bit activations, by the share of inputs that are not zero.

    python benchmarks/event_kernels.py --size 2048 --place dram
    python benchmarks/event_kernels.py --size 2048 --place dram --tokens 128 --active 0.1 0.5 1

Every product reads inputs of its own, drawn anew before every run: `spikes` are 0 or 1, `real` inputs 0 or squares of
normal numbers, as a squared ReLU leaves them. Everything runs in one process and alternates; times are medians per
product (timing.py says how they are taken), and the ratio is the dense product's time over this one's.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from kernels import CODE_BITS, ours, size_of_codes
from onnx import ModelProto, helper
from timing import PLACES, Contestant, Entry, Reads, Setting, Tensors, clock_ns, model_of, opened, table

from exporters.artifact.native_library import library
from exporters.formats.event import row_words
from exporters.ops.signatures import DOMAIN

KINDS = ("spikes", "real")
WARM_RUNS = 2


def event_tensors(bits: int, group: int) -> Callable[[np.random.Generator, int, int], Tensors]:
    """Random codes of inputs; scales such that a product keeps the size of x."""

    def make(rng: np.random.Generator, K: int, N: int) -> Tensors:
        low, high = CODE_BITS[bits]
        row = 4 * row_words(N, low)
        scale = rng.choice([-1, 1], (-(-K // group), N)) / (size_of_codes(bits) * np.sqrt(K))
        packed = [("codes", np.frombuffer(rng.bytes(K * row), np.uint8).reshape(K, row))]
        packed.append(("scales", scale.astype(np.float16)))
        if high:
            more = row * high // low
            packed.append(("high", np.frombuffer(rng.bytes(K * more), np.uint8).reshape(K, more)))
        return packed

    return make


def events(bits: int, group: int, activation_bits: int = 32) -> Contestant:
    return Contestant(
        f"event/int{bits}-g{group} x{activation_bits}",
        "EventLinear",
        DOMAIN,
        event_tensors(bits, group),
        lambda K, N: {"K": K, "N": N, "bits": bits, "group": group, "activation_bits": activation_bits},
    )


def draw(rng: np.random.Generator, kind: str, active: float, x: np.ndarray) -> None:
    """New inputs in x [1, tokens, K], in place."""
    chosen = rng.random(x.shape) < active
    x[...] = chosen if kind == "spikes" else chosen * rng.standard_normal(x.shape) ** 2


def with_own_inputs(model: ModelProto, products: int, K: int) -> ModelProto:
    """Product i reads a graph input x{i} of its own, and writes y{i}."""
    graph = model.graph
    for i, node in enumerate(graph.node):
        node.input[0], node.output[0] = f"x{i}", f"y{i}"
    del graph.input[:], graph.output[:]
    for name, values in (("x", graph.input), ("y", graph.output)):
        values.extend(helper.make_tensor_value_info(f"{name}{i}", 1, [1, "T", None]) for i in range(products))
    return model


class Contest:
    """Contestants at one setting, with inputs that all of them read."""

    def __init__(self, contestants: list[Contestant], setting: Setting, stack: ExitStack) -> None:
        self.entries: list[Entry] = []
        self._inputs: list[np.ndarray] = []
        for contestant in contestants:
            model, each, products = model_of(contestant, replace(setting, chained=False))
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            session = opened(with_own_inputs(model, products, setting.K), setting.threads, folder)
            while len(self._inputs) < products:
                self._inputs.append(np.zeros((1, setting.tokens, setting.K), np.float32))
            binding = session.io_binding()
            for i in range(products):
                binding.bind_cpu_input(f"x{i}", self._inputs[i])
                binding.bind_output(f"y{i}", "cpu")
            run = lambda s=session, b=binding: s.run_with_iobinding(b)  # noqa: E731
            self.entries.append(Entry(contestant, setting, run, each, products))

    def measure(self, kind: str, active: float, repeats: int) -> None:
        rng = np.random.default_rng(0)
        for entry in self.entries:
            entry.times_ns.clear()
        for repeat in range(-WARM_RUNS, repeats):
            for x in self._inputs:
                draw(rng, kind, active, x)
            for entry in self.entries:
                if entry.setting.place != "dram":
                    entry.run()  # brings back what the others pushed out
                start = clock_ns(entry.setting.threads)
                entry.run()
                if repeat >= 0:
                    entry.times_ns.append((clock_ns(entry.setting.threads) - start) / entry.products)


def contestants_of(bits: int, group: int, tokens: int) -> list[Contestant]:
    dense = [ours(bits, group, 8), ours(bits, group, 32)]
    return [*dense, events(bits, group), events(bits, group, 8)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[2048])
    parser.add_argument("--place", choices=PLACES, nargs="+", default=["dram"])
    parser.add_argument("--active", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.3, 0.5, 1.0])
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--bits", type=int, nargs="+", default=[4])
    parser.add_argument("--group", type=int, default=128)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument(
        "--isa", type=int, default=-1, help="0 portable, 1 AVX2, 2 with VNNI, 3 AVX-512; default: the best"
    )
    arguments = parser.parse_args()
    library().slmc_force_isa(arguments.isa)
    a = arguments
    for size, place, bits, tokens, threads in itertools.product(a.size, a.place, a.bits, a.tokens, a.threads):
        setting = Setting(size, size, place, tokens, threads)
        with ExitStack() as stack:
            contest = Contest(contestants_of(bits, a.group, tokens), setting, stack)
            rows = []
            for kind, active in itertools.product(a.kind, a.active):
                contest.measure(kind, active, a.repeats)
                times = [entry.us for entry in contest.entries]
                ratios = [f"{us:.1f} ({times[0] / us:.2f}x)" for us in times]
                rows.append([f"{kind} {active:.0%}", *ratios])
            reads = Reads(threads)
            reads.sample()
        title = (
            f"{size} x {size}, {tokens} token(s), {threads} thread(s), weights in {place}; reads {reads.gbs:.1f} GB/s"
        )
        print(table(title, ["inputs", *(f"{e.contestant.name} us" for e in contest.entries)], rows), flush=True)


if __name__ == "__main__":
    main()
