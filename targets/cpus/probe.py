"""Measures this machine: read bandwidth by working set, and what every operator costs, on the real runtime."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import Io, State
from exporters.chains import PLAIN_NODES, Chain, activation_widths, states_model, write_matrix_chain, write_plain_chain
from exporters.formats.catalog import formats_matching
from targets.cpus.catalog import probe_cpu
from targets.cpus.spec import Bandwidth, CostRow, Cpu
from targets.device.clock import SystemClock, low_decile, timed
from targets.device.memory import available_bytes
from targets.device.native import installed_library, isa_name
from targets.device.reference import reference_work
from targets.device.session import open_session, session_options

_STATE_WIDTH = 256
ROUNDS = 3


@dataclass(frozen=True)
class ProbePlan:
    """What is probed. shapes: matrices, those not square there and back; sets: working sets by the caches' sizes."""

    formats: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]
    widths: tuple[int, ...]
    threads: tuple[int, ...]
    seconds: float


FORMATS = ("fp32", "fp16", "int8", "int6-g64", "int5-g64", "int4-g32", "int4-g64", "int4-g128", "int3-g64", "int2-g64",
           "uint4-g64", "2:4/int4-g64", "4:8/int4-g64", "6:8/int4-g64", "4:8x16/int4-g64", "fp4-g16")  # fmt: skip
QUICK_FORMATS = ("fp32", "fp16", "int8", "int4-g64", "int2-g64")


def plan_for(cores: int, *, quick: bool) -> ProbePlan:
    """All cores besides one thread; quick takes about a fifth of the time and prices fewer formats."""
    threads = (1,) if cores == 1 or quick else (1, cores)
    if quick:
        return ProbePlan(QUICK_FORMATS, ((256, 256), (1024, 256), (1024, 1024)), (256, 1024), threads, 0.05)
    shapes = ((128, 128), (256, 256), (1024, 256), (512, 512), (1024, 1024), (2048, 2048))
    return ProbePlan(FORMATS, shapes, (256, 768, 2048), threads, 0.07)


def working_sets(cpu: Cpu, free_bytes: int | None) -> tuple[tuple[str, int], ...]:
    """(level, bytes): half of the second cache, four times it and half of the third if there is one, twice the last.

    The first cache is left out: within it numpy takes longer to begin than to read. At most an eighth of the free
    memory is used.
    """
    l2 = cpu.l2_bytes or 1 << 19
    last = max(cpu.last_cache_bytes, l2)
    sets = [("L2", l2 // 2)]
    if last > l2:
        sets += [("L3", min(4 * l2, last // 2)), ("L3", last // 2)]
    sets.append(("memory", max(2 * last, 1 << 24)))
    most = (free_bytes or 1 << 33) // 8
    return tuple(dict.fromkeys((level, min(size, most)) for level, size in sets))


def probe(*, quick: bool = False, progress: Callable[[str, int, int], None] = lambda stage, done, total: None) -> Cpu:
    """This machine's facts with measured bandwidths and costs; minutes of one core, or all of them.

    Raises:
        SlmcError: a runtime that cannot run the chains.
    """
    cpu = probe_cpu()
    plan = plan_for(cpu.cores or 1, quick=quick)
    sets = working_sets(cpu, available_bytes())
    bandwidths = tuple(
        Bandwidth(level, threads, size, round(_read_gbs(size, threads), 2))
        for threads in sorted({1, cpu.cores or 1})
        for level, size in sets
    )
    usual = quiet_reference_us()
    costs = _costs(plan, sets, progress)
    memory = next((row.gbs for row in bandwidths if row.level == "memory" and row.threads == 1), None)
    source = f"measured by slmc targets probe{' --quick' if quick else ''}, {datetime.date.today().isoformat()}"
    library = installed_library()
    kernels = f"kernels {isa_name(library)}" if library else "stock operators"
    sources = dict.fromkeys(("bandwidths", "bandwidth_gbs", "reference_us"), source)
    sources["costs"] = f"{source}, ONNX Runtime {ort.__version__}, {kernels}"
    return dataclasses.replace(
        cpu,
        bandwidth_gbs=memory,
        reference_us=round(min(usual, quiet_reference_us()), 2),
        bandwidths=bandwidths,
        costs=costs,
        sources=sources,
    )


def _read_gbs(size: int, threads: int) -> float:
    """GB/s of so many threads, each reading a buffer of its own until 0.1 s are over; numpy reads without the GIL.

    Wall time, because cores that wait for each other's memory is what is asked; the best of several thirds.
    """
    buffers = [np.ones(max(size // 4, 1024), np.int32) for _ in range(threads)]
    passes = max(1, (1 << 24) // buffers[0].nbytes)
    best = 0.0
    for _ in range(5):
        rates = [0.0] * threads
        gate = threading.Barrier(threads)

        def read(i: int, rates: list[float] = rates, gate: threading.Barrier = gate) -> None:
            buffers[i].max()
            gate.wait()
            start = time.perf_counter_ns()
            for _ in range(passes):
                buffers[i].max()
            rates[i] = passes * buffers[i].nbytes / (time.perf_counter_ns() - start)

        workers = [threading.Thread(target=read, args=(i,)) for i in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, sum(rates))
    return best


def _costs(
    plan: ProbePlan, sets: Sequence[tuple[str, int]], progress: Callable[[str, int, int], None]
) -> tuple[CostRow, ...]:
    """Every chain timed in several rounds over all of them, so that one bad moment spoils no row."""
    jobs = list(_jobs(plan, sets))
    samples: dict[tuple[int, int], list[float]] = {}
    chains: dict[int, Chain] = {}
    with tempfile.TemporaryDirectory(prefix="slmc-probe-") as folder:
        for turn in range(ROUNDS):
            for i, write in enumerate(jobs):
                progress("costs", turn * len(jobs) + i + 1, ROUNDS * len(jobs))
                chains[i] = write(Path(folder) / "chain.onnx")
                for threads in plan.threads:
                    run = _opened(chains[i].path, chains[i].width, threads)
                    samples.setdefault((i, threads), []).extend(_samples_us(run, threads, plan.seconds))
    rows = [row for (i, threads), taken in samples.items() for row in _priced(chains[i], threads, taken)]
    for threads in plan.threads:
        relu = next(row.us for row in rows if (row.operator, row.rows, row.threads) == ("Relu", _STATE_WIDTH, threads))
        rows += session_rows(threads, relu)
    return tuple(rows)


def _jobs(plan: ProbePlan, sets: Sequence[tuple[str, int]]) -> Iterator[Callable[[Path], Chain]]:
    """Every shape from the second cache, and one shape from farther away."""
    near = next(size for level, size in sets if level == "L2")
    for fmt in formats_matching(plan.formats):
        largest = max((shape for shape in plan.shapes if max(shape) <= 1024), key=lambda s: s[0] * s[1])
        far = [(*largest, size) for level, size in sets if level in ("L3", "memory")]
        for bits in activation_widths(fmt.name):
            for rows, cols, size in [*((r, c, near) for r, c in plan.shapes), *far]:
                yield functools.partial(
                    write_matrix_chain, format_name=fmt.name, rows=rows, cols=cols, working_set_bytes=size,
                    activation_bits=bits,
                )  # fmt: skip
    for name in PLAIN_NODES:
        for width in plan.widths:
            yield lambda path, n=name, w=width: write_plain_chain(path, n, w)  # type: ignore[misc]


def _priced(chain: Chain, threads: int, samples_us: Sequence[float]) -> Iterator[CostRow]:
    us = low_decile(samples_us) / (chain.count * len(chain.priced))
    for operator, rows, cols in chain.priced:
        bits, size = chain.activation_bits, chain.working_set_bytes
        yield CostRow(operator, chain.format, rows, cols, threads, bits, size, round(us, 4))


def _opened(path: Path, width: int, threads: int) -> Callable[[], object]:
    session = ort.InferenceSession(
        str(path), session_options(installed_library(), threads), providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(1).standard_normal((1, 1, width)).astype(np.float32)
    output = session.get_outputs()[0].name
    (y,) = session.run(None, {"x0": x})
    if not np.isfinite(y).all():
        raise SlmcError(f"{path.name}: the chain's values run away; this is a fault of slmc: please report it")
    binding = session.io_binding()
    binding.bind_ortvalue_input("x0", ort.OrtValue.ortvalue_from_numpy(x))
    binding.bind_ortvalue_output(output, ort.OrtValue.ortvalue_from_numpy(y))
    return lambda: session.run_with_iobinding(binding)


def _samples_us(run: Callable[[], object], threads: int, seconds: float) -> list[float]:
    """Times of calls: CPU time on one thread; wall time on several, because they wait for each other."""
    clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns
    run()
    run()
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while len(samples) < 5 or (time.perf_counter() < end and len(samples) < 1000):
        start = clock()
        run()
        samples.append((clock() - start) / 1e3)
    return samples


def quiet_reference_us() -> float:
    """CPU time of the reference work on the machine as it is when nothing disturbs it, in microseconds."""
    return 1e3 * low_decile([timed(SystemClock(), reference_work).cpu_ms for _ in range(50)])


def session_rows(threads: int, relu_us: float) -> Iterator[CostRow]:
    """What a call costs besides its nodes, for few and many states; relu_us is taken off for each state's node."""
    least = 0.1
    with tempfile.TemporaryDirectory(prefix="slmc-probe-") as folder:
        for count in (4, 32, 128):
            path = Path(folder) / f"states{count}.onnx"
            path.write_bytes(states_model(count, _STATE_WIDTH))
            states = tuple(State(f"s{i}", f"t{i}", (1, _STATE_WIDTH), "float32", 0.0) for i in range(count))
            session = open_session(path, Io("tokens", "logits", states), native=None, threads=threads)
            us = low_decile(_samples_us(functools.partial(session.step, 0), 1, 0.2))
            # Many small nodes side by side cost less than in a chain, so that the rest may seem to shrink: it does not.
            least = max(us - count * relu_us, least)
            yield CostRow("Session", "", count, 1, threads, 0, 0, round(least, 4))
