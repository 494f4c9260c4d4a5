"""Products side by side in ONNX Runtime: models of one kind of node, runs that alternate, reads for comparison.

A model is many products of one kind. With `dram` and `l3` every product has weights of its own (128 and 12 MiB in all),
with `l2` all share one set. Weights lie in a file beside the model, as in an artifact, so a kernel that uses them in
place reads mapped pages. On one thread the clock is that thread's CPU time, on more it is the wall's.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporters.artifact.native_library import library_path
from exporters.ops.signatures import DOMAIN

PLACES = ("l2", "l3", "dram")
TOTAL_BYTES = {"dram": 128 << 20, "l3": 12 << 20}
MIN_PRODUCTS, MAX_PRODUCTS, SHARED_PRODUCTS = 8, 600, 64
READ_BYTES = 256 << 20

Tensors = list[tuple[str, np.ndarray]]


@dataclass(frozen=True)
class Contestant:
    """One kind of node. `weights(rng, K, N)` are its initializers after x, "" for one left out; `attributes(K, N)`
    the rest."""

    name: str
    operator: str
    domain: str
    weights: Callable[[np.random.Generator, int, int], Tensors]
    attributes: Callable[[int, int], dict[str, int]]


@dataclass(frozen=True)
class Setting:
    """Where and how products run. `chained`: a product's output is the next one's input (K = N), else all read one x
    (`chained=False`)."""

    K: int
    N: int
    place: str
    tokens: int = 1
    threads: int = 1
    chained: bool = True


@dataclass
class Entry:
    """A model ready to run, and its times per product in ns."""

    contestant: Contestant
    setting: Setting
    run: Callable[[], None]
    bytes_per_product: int
    products: int
    times_ns: list[float] = field(default_factory=list)

    @property
    def us(self) -> float:
        """Median time of one product."""
        return statistics.median(self.times_ns) / 1e3

    @property
    def gbs(self) -> float:
        """Codes, scales and everything else stored, once per product."""
        return self.bytes_per_product / self.us / 1e3


def model_of(contestant: Contestant, setting: Setting, seed: int = 0) -> tuple[ModelProto, int, int]:
    """The model, the bytes of one product's weights, the number of products."""
    rng = np.random.default_rng(seed)
    K, N = setting.K, setting.N
    first = contestant.weights(rng, K, N)
    each = sum(array.nbytes for _, array in first)
    shared = setting.place == "l2"
    wanted = SHARED_PRODUCTS if shared else TOTAL_BYTES[setting.place] // each
    products = min(max(wanted, MIN_PRODUCTS), MAX_PRODUCTS)
    nodes, initializers = [], []
    for i in range(products):
        own = 0 if shared else i
        if own == i:
            arrays = first if i == 0 else contestant.weights(rng, K, N)
            initializers += [numpy_helper.from_array(array, f"{name}{i}") for name, array in arrays if name]
        inputs = [f"x{i if setting.chained else 0}", *(f"{name}{own}" if name else "" for name, _ in first)]
        nodes.append(
            helper.make_node(
                contestant.operator, inputs, [f"x{i + 1}"], domain=contestant.domain, **contestant.attributes(K, N)
            )
        )
    ends = [products] if setting.chained else range(1, products + 1)
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, "T", K])],
        [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [1, "T", N]) for i in ends],
        initializers,
    )
    imports = [helper.make_opsetid(d, v) for d, v in (("", 18), (DOMAIN, 1), ("com.microsoft", 1))]
    return helper.make_model(graph, opset_imports=imports, ir_version=9), each, products


def opened(model: ModelProto, threads: int, folder: Path) -> ort.InferenceSession:
    """The model with its weights in a mapped file."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")  # a thread that waits for work slows the next
    options.register_custom_ops_library(str(library_path()))
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=1024)
    # equal products would be computed once
    return ort.InferenceSession(
        path, options, providers=["CPUExecutionProvider"], disabled_optimizers=["CommonSubexpressionElimination"]
    )


def normal(rng: np.random.Generator, tokens: int, K: int) -> np.ndarray:
    """Activations as after a normalisation, float32 [1, tokens, K]."""
    return rng.standard_normal((1, tokens, K)).astype(np.float32)


@contextmanager
def entered(
    contestants: list[Contestant],
    setting: Setting,
    activations: Callable[[np.random.Generator, int, int], np.ndarray] = normal,
) -> Iterator[list[Entry]]:
    """Every contestant's model, opened; its file lives as long as the context.

    Raises:
        RuntimeError: a chain's outputs grow or vanish, so that its arithmetic is not that of a model.
    """
    with tempfile.TemporaryDirectory() as folder:
        entries = []
        for i, contestant in enumerate(contestants):
            own = Path(folder) / str(i)
            own.mkdir()
            model, each, products = model_of(contestant, setting)
            session = opened(model, setting.threads, own)
            x = activations(np.random.default_rng(1), setting.tokens, setting.K)
            binding = session.io_binding()
            binding.bind_cpu_input("x0", x)
            outputs = session.run(None, {"x0": x})
            if not 0.01 < float(np.std(outputs[-1])) < 100:
                raise RuntimeError(f"{contestant.name}: outputs ran away, standard deviation {np.std(outputs[-1])}")
            for output, y in zip(session.get_outputs(), outputs, strict=True):
                binding.bind_ortvalue_output(output.name, ort.OrtValue.ortvalue_from_numpy(y))

            def run(session: ort.InferenceSession = session, binding: ort.IOBinding = binding) -> None:
                session.run_with_iobinding(binding)

            entries.append(Entry(contestant, setting, run, each, products))
        yield entries


def clock_ns(threads: int) -> int:
    return time.thread_time_ns() if threads == 1 else time.perf_counter_ns()


class Reads:
    """The read bandwidth of `threads` threads: numpy's maximum over 256 MiB, which numpy puts into huge pages."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._parts = np.array_split(np.ones(READ_BYTES, np.int8), threads)
        self._pool = ThreadPoolExecutor(threads)
        self.gbs_samples: list[float] = []
        self.sample()
        self.gbs_samples.clear()

    def sample(self) -> None:
        start = clock_ns(self._threads)
        if self._threads == 1:
            self._parts[0].max()
        else:
            list(self._pool.map(np.max, self._parts))
        self.gbs_samples.append(READ_BYTES / (clock_ns(self._threads) - start))

    @property
    def gbs(self) -> float:
        return statistics.median(self.gbs_samples)


def measure(entries: list[Entry], repeats: int) -> Reads:
    """Fills in the times, every contestant once per repeat; the reads alternate with them."""
    setting = entries[0].setting
    reads = Reads(setting.threads)
    for entry in entries:
        entry.run()
    for _ in range(repeats):
        for entry in entries:
            if setting.place != "dram":
                entry.run()  # brings back what the others pushed out
            start = clock_ns(setting.threads)
            entry.run()
            entry.times_ns.append((clock_ns(setting.threads) - start) / entry.products)
        reads.sample()
    return reads


def table(title: str, columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose columns also line up in a terminal."""
    cells = [columns, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]

    def line(row: list[str]) -> str:
        first, *rest = (
            f"{cell:{'<' if i == 0 else '>'}{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join(["", f"**{title}**", "", line(columns), rule, *(line(row) for row in rows), ""])
