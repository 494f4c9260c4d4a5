"""A CPU target as a value and as a file: facts with their sources, bandwidths, measured costs of operators."""

from __future__ import annotations

import math
import tomllib
import typing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from exporters.artifact.errors import SlmcError
from exporters.artifact.opening import bounded, read_text
from exporters.artifact.parsing import parse
from exporters.artifact.runtimes import SLMC_RUN

_REQUIRED = {"name", "architecture", "model", "isa"}
_TABLES = {"bandwidths", "costs"}
_MAY_BE_NONE = {"activation_bits", "working_set_bytes", "spread"}
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}

# What a CPU can have; whatever lies outside is a slip of the unit, such as KiB for bytes or MHz for GHz.
_PLAUSIBLE: Final[dict[str, tuple[float, float, str]]] = {
    "cores": (1, 1024, "cores"),
    "clock_ghz": (0.05, 10, "GHz, so 1.5 for 1500 MHz"),
    "l1d_bytes": (1 << 10, 1 << 24, "bytes, so 32768 for 32 KiB"),
    "l2_bytes": (1 << 14, 1 << 30, "bytes, so 524288 for 512 KiB"),
    "l3_bytes": (1 << 16, 1 << 34, "bytes, so 2097152 for 2 MiB"),
    "memory_bytes": (1 << 20, 1 << 50, "bytes, so 536870912 for 512 MiB"),
    "bandwidth_gbs": (0.01, 10_000, "GB/s, so 3.6 for 3600 MB/s"),
    "peak_bandwidth_gbs": (0.01, 10_000, "GB/s, so 3.6 for 3600 MB/s"),
    "reference_us": (1, 1e6, "microseconds"),
    "empty_runtime_bytes": (1 << 16, 1 << 34, "bytes, so 52428800 for 50 MiB"),
    "temperature_c": (0.1, 150, "degrees Celsius"),
    "pause_ms": (0.05, 1e5, "milliseconds"),
    "wait": (0.5, 1000, "wall time over CPU time"),
}


@dataclass(frozen=True)
class Bandwidth:
    """What so many threads together read, in GB/s (1e9), each from a buffer of working_set_bytes in `level`."""

    level: str
    threads: int
    working_set_bytes: int
    gbs: float


@dataclass(frozen=True)
class CostRow:
    """What one node took for one token, in microseconds: CPU time on one thread, else wall time; nothing beside it.

    rows x cols: outputs x inputs of a matrix; width x 1 of any other node; states x 1 of 'Session', which is what one
    call takes besides its nodes. format: of the weights, '' without any.
    activation_bits: 8 or 32 where the operator has the choice, else 0. working_set_bytes: what the whole benchmark of
    such nodes reads before it comes to the same weights again. spread: how much longer the slowest turn of the probe
    took than the fastest, as a share.
    """

    operator: str
    format: str
    rows: int
    cols: int
    threads: int
    activation_bits: int
    working_set_bytes: int
    us: float
    spread: float = 0.0


@dataclass(frozen=True)
class Pauses:
    """A process that has share_ms of CPU time, and is then stopped for each_ms. wait: wall over CPU time."""

    wait: float
    each_ms: float
    share_ms: float


@dataclass(frozen=True)
class Cpu:
    """Facts of one CPU; None for what nobody knows. l1d and l2 as one core sees them, l3 as a whole, in bytes.

    bandwidth_gbs is what one thread reads from memory, measured; peak_bandwidth_gbs is what the memory's pins can do:
    transfers per second x width. reference_us: what targets.device.reference took when the costs were measured.
    empty_runtime_bytes: what the runtime holds without a model. kernels: the id of the sources of the operators that
    were measured, or 'stock'; runtime: what ran them. governor, temperature_c: the machine's, meanwhile. wait: the
    least wall over CPU time of the reference work: 1 on a core of one's own, 4 where a process gets a quarter of one;
    predicted times are multiplied with it. pause_ms: how long a process that has used up its share is stopped at a
    time; None where it is not. sources says of every figure where it is from.
    """

    name: str
    architecture: str
    model: str
    isa: str
    cores: int | None = None
    clock_ghz: float | None = None
    l1d_bytes: int | None = None
    l2_bytes: int | None = None
    l3_bytes: int | None = None
    memory_bytes: int | None = None
    bandwidth_gbs: float | None = None
    peak_bandwidth_gbs: float | None = None
    reference_us: float | None = None
    empty_runtime_bytes: int | None = None
    kernels: str | None = None
    runtime: str | None = None
    governor: str | None = None
    temperature_c: float | None = None
    wait: float | None = None
    pause_ms: float | None = None
    bandwidths: tuple[Bandwidth, ...] = ()
    costs: tuple[CostRow, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def of_slmc_run(self) -> bool:
        """Whether costs were measured on slmc-run, not on ONNX Runtime."""
        return is_slmc_run(self.runtime)

    def outdated(self, model: str, kernels: str | None, runtime: str | None) -> str | None:
        """Why measured costs say little of a machine with this CPU, these kernels and this runtime (see the fields of
        these names); None where they fit, or where nothing was measured. Versions of ONNX Runtime count as one."""
        if not self.costs:
            return None
        if self.runtime != runtime and (self.of_slmc_run or is_slmc_run(runtime)):
            return (
                f"its costs were measured on {self.runtime or 'ONNX Runtime'}, and this is {runtime or 'ONNX Runtime'}"
            )
        if self.model != model:
            return f"its costs were measured on {self.model}, and this is {model}"
        if self.kernels is not None and self.kernels != (kernels or "stock"):
            return (
                f"its costs were measured with operators {self.kernels[:12]}, and these are {(kernels or 'stock')[:12]}"
            )
        return None

    def median_ms(self, mean_ms: float) -> float:
        """The median wall time of pieces of work, one after the other, that take mean_ms on average on one thread.

        CPU time c, begun anywhere, meets floor(c / share) pauses or one more; the more likely of the two is the median.
        """
        if self.pauses is None:
            return mean_ms
        cpu_ms = mean_ms / self.pauses.wait
        return cpu_ms + math.floor(cpu_ms / self.pauses.share_ms + 0.5) * self.pauses.each_ms

    def mean_ms_within(self, limit_ms: float) -> float:
        """The longest mean time whose median is within a limit."""
        if self.pauses is None:
            return limit_ms
        share, each = self.pauses.share_ms, self.pauses.each_ms
        number = math.floor((limit_ms + share / 2) / (share + each))
        return self.pauses.wait * min(limit_ms - number * each, (number + 0.5) * share)

    @property
    def pauses(self) -> Pauses | None:
        """How a process is held up; None on a core of one's own."""
        if self.pause_ms is None or self.wait is None or self.wait <= 1:
            return None
        return Pauses(self.wait, self.pause_ms, self.pause_ms / (self.wait - 1))

    @property
    def last_cache_bytes(self) -> int:
        """The largest cache that is known; 0 if none is."""
        return max(self.l1d_bytes or 0, self.l2_bytes or 0, self.l3_bytes or 0)


def is_slmc_run(runtime: str | None) -> bool:
    """Whether a `Cpu.runtime` is slmc-run, on a machine or on one that is emulated."""
    return runtime is not None and runtime.startswith(SLMC_RUN)


FIGURES: Final = tuple(f.name for f in fields(Cpu) if f.name not in {"name", "model", "sources", *_TABLES})
"""Keys whose value somebody must have measured or published, so that a source can be named."""


def read_cpu(path: Path) -> Cpu:
    """A CPU from its TOML file: the keys are the fields of `Cpu`.

    Raises:
        SlmcError: no such file, not TOML, a key missing or unknown, a value of another type, out of all proportion
            (a slip of the unit), or a source for what is not stated.
    """
    advice = "see 'slmc targets ls', or write one with 'slmc targets probe -o FILE'"
    text = read_text(path, advice)
    try:
        facts = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers and depths that Python refuses
        raise SlmcError(f"{path}: not a readable target file ({error}); {advice}") from error
    bounded(facts, str(path), advice)
    known = {f.name for f in fields(Cpu)}
    if wrong := sorted(facts.keys() - known):
        raise SlmcError(f"{path}: unknown key {wrong[0]!r}; allowed are {', '.join(sorted(known))}")
    if missing := sorted(_REQUIRED - facts.keys()):
        raise SlmcError(f"{path}: key {missing[0]!r} is missing; needed are {', '.join(sorted(_REQUIRED))}")
    hints = typing.get_type_hints(Cpu)
    values = {key: _fact(f"{path}: {key}", hints[key], key, value) for key, value in facts.items()}
    if unused := sorted(values.get("sources", {}).keys() - facts.keys()):
        raise SlmcError(f"{path}: sources.{unused[0]} names a source, but {unused[0]!r} is not stated; state it too")
    return Cpu(**values)


def _fact(where: str, kind: Any, key: str, value: Any) -> Any:
    fact = parse(kind, value, where)
    if key in _TABLES:
        for i, row in enumerate(fact):
            _check_row(f"{where}[{i}]", row)
    elif key in _PLAUSIBLE:
        _check_number(where, key, fact)
    return fact


def _check_number(where: str, key: str, fact: float) -> None:
    least, most, unit = _PLAUSIBLE[key]
    if not 0 < fact < float("inf"):
        raise SlmcError(f"{where} is {fact!r}; it must be positive; leave the key out if it is not known")
    if not least <= fact <= most:
        raise SlmcError(f"{where} is {fact!r}; allowed is {least:g} to {most:g}; the unit is {unit}")


def _check_row(where: str, row: Bandwidth | CostRow) -> None:
    for f in fields(row):
        value = getattr(row, f.name)
        least = (
            0 if f.name in ("activation_bits", "working_set_bytes", "spread") else 1 if isinstance(value, int) else 1e-9
        )
        if isinstance(value, (int, float)) and not least <= value < float("inf"):
            raise SlmcError(f"{where}.{f.name} is {value!r}; it must be finite and {least:g} or more")


def to_toml(cpu: Cpu) -> str:
    """The file that `read_cpu` reads as this very value."""
    lines = []
    for f in fields(Cpu):
        value = getattr(cpu, f.name)
        if value is not None and f.name not in {"sources", *_TABLES}:
            lines.append(f"{f.name} = {_literal(value)}")
    if cpu.sources:
        lines += ["", "[sources]", *(f"{key} = {_literal(value)}" for key, value in cpu.sources.items())]
    for table in ("bandwidths", "costs"):
        rows = [
            "  {" + ", ".join(f"{f.name} = {_literal(getattr(row, f.name))}" for f in fields(row)) + "},"
            for row in getattr(cpu, table)
        ]
        if rows:  # arrays of inline tables: one line per row; they must stand before the [sources] table
            at = lines.index("") if "" in lines else len(lines)
            lines[at:at] = [f"{table} = [", *rows, "]"]
    return "\n".join(lines) + "\n"


def _literal(value: str | float) -> str:
    if isinstance(value, str):
        return '"' + "".join(_ESCAPES.get(c, c) for c in value if c.isprintable() or c in _ESCAPES) + '"'
    return repr(value)
