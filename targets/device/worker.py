"""The child process that is measured: a job as JSON on stdin, one JSON document on stdout, nothing else loaded.

It imports numpy and onnxruntime only, as a device would, so that its memory is the model's and the runtime's.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import itertools
import json
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import onnxruntime as ort

from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.manifest import Io
from exporters.artifact.parsing import parse
from targets.device.bandwidth import read_bandwidth_gbs
from targets.device.clock import Clock, SystemClock, Timed, timed
from targets.device.conditions import conditions
from targets.device.host import host_cpu
from targets.device.measurement import Job, Measurement, MeasureRequest
from targets.device.memory import Memory, weigh
from targets.device.native import isa_name, serving_library
from targets.device.rapl import counter_uj, spent_uj
from targets.device.reference import timed_reference
from targets.device.session import Session, Tokens, open_session

# The smallest model there is: one Identity from X float [1] to Y float [1], IR version 8, opset 17. Written with
# onnx.helper; a test reads it with onnx.checker. It makes ONNX Runtime set up all that any model needs.
EMPTY_MODEL = (
    b'\x08\x08:;\n\x10\n\x01X\x12\x01Y"\x08Identity\x12\x05emptyZ\x0f\n\x01X\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01Y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)


def weigh_empty_runtime() -> Memory:
    """What this process holds with no model: ONNX Runtime, one session of `EMPTY_MODEL` opened and run, and all that
    measuring itself needs (the reference work alone touches 1.7 MB), which would else count as the model's."""
    timed_reference(SystemClock())
    session = ort.InferenceSession(EMPTY_MODEL, providers=["CPUExecutionProvider"])
    session.run(None, {"X": np.zeros(1, np.float32)})
    return weigh()


def measure_model(artifact: Path, graph: str, io: Io, request: MeasureRequest, clock: Clock) -> Measurement:
    """Opens the artifact and times it in this very process.

    Every repetition does all three pieces of work in turn (reference, prompt, generation), so that a machine that
    slows down meanwhile slows all of them and not one.
    """
    baseline, before = weigh_empty_runtime(), conditions()
    native = serving_library(artifact, own=request.artifact_native) if request.native else None
    opened: list[Session] = []
    load = timed(
        clock, lambda: opened.append(open_session(artifact / graph, io, native=native, threads=request.threads))
    )
    session = opened[0]
    loaded = weigh()
    text = _token_stream(request, session.vocabulary)
    first = timed(clock, functools.partial(session.step, next(text)))
    after_first_token = weigh()
    gc.disable()
    try:
        prompts, decodes, references, spent = _repeat(session, request, text, clock)
    finally:
        gc.enable()
    ended, after = weigh(), conditions()
    cpu = host_cpu()
    return Measurement(
        cpu=cpu.model,
        isa=isa_name(native),
        threads=request.threads,
        ort_version=ort.__version__,
        native_library=None if native is None else str(native),
        prompt_tokens=request.prompt_tokens,
        generate_tokens=request.generate_tokens,
        chunk_tokens=request.chunk_tokens,
        repetitions=len(references),
        random_tokens=not request.tokens,
        load_ms=load.wall_ms,
        first_token_ms=first.wall_ms,
        prompt_wall_ms=tuple(sample.wall_ms for sample in prompts),
        prompt_cpu_ms=tuple(sample.cpu_ms for sample in prompts),
        decode_wall_ms=tuple(sample.wall_ms for sample in decodes),
        decode_cpu_ms=tuple(sample.cpu_ms for sample in decodes),
        reference_wall_ms=tuple(sample.wall_ms for sample in references),
        reference_cpu_ms=tuple(sample.cpu_ms for sample in references),
        baseline=baseline,
        loaded=loaded,
        ended=ended,
        state_bytes=session.state_bytes,
        read_bandwidth_gbs=_bandwidth(cpu.last_cache_bytes, clock) if request.bandwidth else None,
        temperature_before_c=before.temperature_c,
        temperature_after_c=after.temperature_c,
        after_first_token=after_first_token,
        before=before,
        after=after,
        generation_uj=spent,
        depth_tokens=request.depth_tokens,
    )


def _repeat(
    session: Session, request: MeasureRequest, text: Iterator[int], clock: Clock
) -> tuple[list[Timed], list[Timed], list[Timed], int | None]:
    """Samples of prompt processing and the reference (per repetition) and generation (per token); its energy in uJ."""
    prompts: list[Timed] = []
    decodes: list[Timed] = []
    references: list[Timed] = []
    spent: list[int | None] = []
    _warm_up(session, request, text)
    end = clock.wall_ns() + int(request.budget_s * 1e9)
    for repetition in range(request.repetitions):
        if repetition and clock.wall_ns() > end:
            break
        references.append(timed_reference(clock))
        _begin(session, request, text)
        if request.prompt_tokens:
            prompts.append(timed(clock, _prompt(session, request, text)))
        counter = counter_uj()
        for token in itertools.islice(text, request.generate_tokens):
            decodes.append(timed(clock, functools.partial(_step, session, token)))
        spent.append(spent_uj(counter, counter_uj()))
    known = [uj for uj in spent if uj is not None]
    return prompts, decodes, references, sum(known) if known and len(known) == len(spent) else None


def _step(session: Session, token: int) -> None:
    """One token more; of a model that reads whole texts in one call, a text of one token."""
    if session.io.classes and session.io.classes.whole_texts:
        session.reset()
    session.step(token)


def _begin(session: Session, request: MeasureRequest, text: Iterator[int]) -> None:
    """A new text, read as far as the tokens that are timed lie behind its beginning."""
    session.reset()
    if request.depth_tokens:
        session.prefill(_taken(text, request.depth_tokens), request.chunk_tokens)


def _warm_up(session: Session, request: MeasureRequest, text: Iterator[int]) -> None:
    """One prompt and a few tokens that do not count: memory is allocated, weights are in the file cache."""
    _begin(session, request, text)
    if request.prompt_tokens:
        _prompt(session, request, text)()
    for token in itertools.islice(text, min(3, request.generate_tokens)):
        _step(session, token)


def _prompt(session: Session, request: MeasureRequest, text: Iterator[int]) -> Callable[[], object]:
    tokens = _taken(text, request.prompt_tokens)
    return lambda: session.prefill(tokens, request.chunk_tokens)


def _taken(text: Iterator[int], count: int) -> Tokens:
    """The next tokens of a text, int64 [1, count]."""
    return np.array([list(itertools.islice(text, count))], np.int64)


def _token_stream(request: MeasureRequest, vocabulary: int) -> Iterator[int]:
    """The request's tokens over and over, or random ones without end."""
    if request.tokens:
        return itertools.cycle(request.tokens)
    generator = random.Random(request.seed)
    return (generator.randrange(vocabulary) for _ in itertools.count())


def _bandwidth(cache_bytes: int, clock: Clock) -> float | None:
    try:
        return read_bandwidth_gbs(cache_bytes, clock)
    except NotAvailable:
        return None


def answer(job_json: str) -> dict[str, Any]:
    """The document for stdout: {'baseline': ...} or {'measurement': ...}, or {'error': {kind, text}}."""
    try:
        job: Job = parse(Job, json.loads(job_json), "job")
        if job.io is None:
            return {"baseline": dataclasses.asdict(weigh_empty_runtime())}
        measurement = measure_model(Path(job.artifact), job.graph, job.io, job.request, SystemClock())
        return {"measurement": dataclasses.asdict(measurement)}
    except SlmcError as error:
        return {"error": {"kind": type(error).__name__, "text": str(error)}}


def _claim_stdout() -> TextIO:
    """Stdout for the document alone: what a library prints there goes to stderr instead."""
    stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stdout


def main() -> None:
    with _claim_stdout() as stdout:
        json.dump(answer(sys.stdin.read()), stdout)


if __name__ == "__main__":
    main()
