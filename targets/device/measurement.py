"""What a measurement is asked for and what it says: values that travel as JSON between a process and its child."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.manifest import Io, Measured, Percentiles
from exporters.artifact.runtimes import ONNXRUNTIME
from targets.device.clock import median, percentiles
from targets.device.conditions import HELD_UP, Conditions, doubts
from targets.device.memory import Memory

_MS_PER_S = 1e3
_GB = 1e9


CHUNK_LOGITS = 2**20
"""A prompt is read in chunks of at most so many logits (4 MiB), so that they do not swamp the memory measured."""

MOST_CHUNK = 64
"""Tokens of a prompt that are read in one call. benchmarks/last_logits.py: 512 at once are a tenth faster."""


def pieces(tokens: int, context: int | None, chunk: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the calls that read a text: chunks, none of which crosses a multiple of the context.

    At such a multiple a text goes on from an empty state; what begins there is not predicted.
    """
    step = min(chunk, context or chunk)
    for segment in range(0, tokens, context or max(tokens, 1)):
        stop = min(tokens, segment + context) if context else tokens
        for start in range(segment, stop, step):
            yield start, min(start + step, stop)


def fitting_lengths(prompt: int, generate: int, context: int | None) -> tuple[int, int]:
    """Tokens of prompt and of generation that fit into one context; the prompt takes half of it at most."""
    if context is None:
        return prompt, generate
    prompt = min(prompt, context // 2)
    return prompt, min(generate, context - prompt)


def chunk_for(vocabulary: int) -> int:
    """Tokens per chunk of a prompt: a power of two from 8 to 64 that keeps within CHUNK_LOGITS."""
    return next((size for size in (MOST_CHUNK, 32, 16) if size * vocabulary <= CHUNK_LOGITS), 8)


def prompt_chunk(io: Io, vocabulary: int) -> int:
    """Tokens per chunk of a prompt whose last logits alone count; a graph that gives them all needs the room."""
    return MOST_CHUNK if io.logits_from else chunk_for(vocabulary)


@dataclass(frozen=True)
class MeasureRequest:
    """How to measure. Prompt processing and generation are separate tests; either may be left out with 0 tokens.

    tokens: the text to read, over and over if it is too short; empty for uniformly random ones. A spiking model's speed
        depends on what it reads, so real text is the better choice.
    native: whether to use the operator library that serves this machine, if there is one.
    artifact_native: whether that may be the artifact's own, which is code of whoever made it.
    chunk_tokens: a prompt is read in chunks of this many tokens.
    bandwidth: whether to measure the read bandwidth at the end, which takes some memory of its own.
    budget_s: no further repetition begins after this time; at least one is made.
    timeout_s: the child process is ended after this time.
    depth_tokens: of a text that are read before each repetition's prompt and generation, and not timed.
    """

    prompt_tokens: int = 128
    generate_tokens: int = 64
    repetitions: int = 5
    threads: int = 1
    native: bool = True
    tokens: tuple[int, ...] = ()
    seed: int = 0
    chunk_tokens: int = 64
    bandwidth: bool = True
    budget_s: float = 60.0
    timeout_s: float = 600.0
    artifact_native: bool = False
    depth_tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("repetitions", "threads", "chunk_tokens", "budget_s", "timeout_s"):
            if getattr(self, name) <= 0:
                raise SlmcError(f"{name} is {getattr(self, name)}; it must be more than 0")
        if self.depth_tokens < 0:
            raise SlmcError(f"depth_tokens is {self.depth_tokens}; it may not be negative")
        if min(self.prompt_tokens, self.generate_tokens) < 0 or self.prompt_tokens + self.generate_tokens == 0:
            raise SlmcError(
                f"prompt_tokens is {self.prompt_tokens} and generate_tokens {self.generate_tokens}; "
                "neither may be negative, and one must be more than 0"
            )


@dataclass(frozen=True)
class Job:
    """What the child process reads: one artifact to measure, or nothing but the empty runtime."""

    artifact: str
    graph: str
    io: Io | None
    request: MeasureRequest


@dataclass(frozen=True)
class Measurement:
    """All that was measured, samples in order of time; wall is what a user waits, cpu leaves other programs out.

    baseline: an empty runtime (one-node model); loaded: after opening; ended: after the last token, its peak included.
    load_ms: opening the artifact, file cache as found. first_token_ms: the first call of all, pages still cold.
    prompt_*: one sample per repetition. decode_*: one per generated token.
    reference_*: a fixed piece of work beside each repetition; it varies only if the machine does.
    generation_uj: what all generated tokens took of the processor's energy counter, other programs included.
    ort_version: empty where another runtime ran.
    """

    cpu: str
    isa: str
    threads: int
    ort_version: str
    native_library: str | None
    prompt_tokens: int
    generate_tokens: int
    chunk_tokens: int
    repetitions: int
    random_tokens: bool
    load_ms: float
    first_token_ms: float
    prompt_wall_ms: tuple[float, ...]
    prompt_cpu_ms: tuple[float, ...]
    decode_wall_ms: tuple[float, ...]
    decode_cpu_ms: tuple[float, ...]
    reference_wall_ms: tuple[float, ...]
    reference_cpu_ms: tuple[float, ...]
    baseline: Memory
    loaded: Memory
    ended: Memory
    state_bytes: int
    read_bandwidth_gbs: float | None
    temperature_before_c: float | None
    temperature_after_c: float | None
    after_first_token: Memory | None = None
    before: Conditions | None = None
    after: Conditions | None = None
    generation_uj: int | None = None
    runtime: str = ONNXRUNTIME
    depth_tokens: int = 0

    @property
    def prompt_tps(self) -> float:
        """Prompt tokens per second, by the median repetition's wall time."""
        return self.prompt_tokens * _MS_PER_S / median(self.prompt_wall_ms)

    @property
    def decode_ms(self) -> Percentiles:
        """Wall time per generated token."""
        return percentiles(self.decode_wall_ms)

    @property
    def decode_cpu_ms_percentiles(self) -> Percentiles:
        """CPU time per generated token, of all threads together: what a comparison on a shared machine should use."""
        return percentiles(self.decode_cpu_ms)

    @property
    def decode_tps(self) -> float:
        """Generated tokens per second, by the median token's wall time."""
        return _MS_PER_S / median(self.decode_wall_ms)

    @property
    def reference_wait(self) -> float:
        """Wall / CPU time of the reference work: 1 on a machine of one's own, 2 if other programs took half of it."""
        return median(self.reference_wall_ms) / median(self.reference_cpu_ms)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What makes these figures less than they seem, in sentences."""
        return self.doubts_beside(1.0)

    def doubts_beside(self, usual_wait: float) -> tuple[str, ...]:
        """The same on a machine that always makes a process wait so long: wall over CPU time.

        Pauses of a process that is held up are longer than the reference work, which meets one or two by chance; all
        tokens together say what it had to wait.
        """
        wait = self.reference_wait
        if usual_wait > HELD_UP and self.threads == 1 and self.decode_cpu_ms:
            wait = sum(self.decode_wall_ms) / sum(self.decode_cpu_ms)
        return doubts(self.reference_cpu_ms, wait, self.before, self.after, usual_wait)

    @property
    def uj_per_token(self) -> float | None:
        """Microjoules of the processor per generated token, measured; None without a counter."""
        spent = self.generation_uj
        return None if spent is None or not self.decode_wall_ms else spent / len(self.decode_wall_ms)


def to_measured(
    measurement: Measurement, target: str, weight_bytes_per_token: int, bandwidth_gbs: float | None = None
) -> Measured:
    """The manifest's section from a measurement.

    bandwidth_fraction = bytes of weights that one token reads x tokens per second / what one thread reads from memory;
    above 1 when the weights stay in the caches or several threads read. `bandwidth_gbs` is used if none was measured.

    Raises:
        SlmcError: the measurement lacks prompt processing or generation.
        NotAvailable: no bandwidth was measured and none is given.
    """
    if not measurement.prompt_wall_ms or not measurement.decode_wall_ms:
        raise SlmcError("the measurement lacks prompt processing or generation; measure with tokens for both")
    bandwidth = measurement.read_bandwidth_gbs or bandwidth_gbs
    if bandwidth is None:
        raise NotAvailable(
            "the read bandwidth could not be measured (too little free memory); "
            "state bandwidth_gbs in the target's file"
        )
    return Measured(
        target=target,
        cpu=measurement.cpu,
        isa=measurement.isa,
        threads=measurement.threads,
        ort_version=measurement.ort_version,
        native=measurement.native_library is not None,
        prompt_tokens=measurement.prompt_tokens,
        prompt_tps=measurement.prompt_tps,
        decode_ms=measurement.decode_ms,
        decode_tps=measurement.decode_tps,
        load_ms=measurement.load_ms,
        rss_peak_bytes=measurement.ended.peak_bytes,
        rss_after_load_bytes=measurement.loaded.rss_bytes,
        rss_baseline_bytes=measurement.baseline.rss_bytes,
        private_bytes=measurement.ended.private_bytes,
        file_backed_bytes=measurement.ended.file_backed_bytes,
        read_bandwidth_gbs=bandwidth,
        bandwidth_fraction=weight_bytes_per_token * measurement.decode_tps / (bandwidth * _GB),
    )
