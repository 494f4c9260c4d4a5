"""Figures for the gate: an artifact is evaluated on the text, and measured in several processes in turn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exporters.artifact.manifest import Manifest
from exporters.artifact.runtimes import SLMC_RUN
from targets.device import reference
from targets.device.measurement import Measurement, MeasureRequest, fitting_lengths
from targets.device.verify import file_sha256
from toolchain.delivery.evaluation import Readings
from toolchain.delivery.execution import ExecutionTarget
from toolchain.files.progress import Progress
from toolchain.gate.values import Figures, LayerSize, Machine, Predictions, Sizes, Speed, TextRead
from toolchain.model.text import Text

_OWN_WORK = "slmc-run, 1500 rounds"
PROCESSES = 5
PROMPT, POSITIONS, ROUNDS = 64, 64, 24
"""A process reads the same prompt and then the same tokens one by one, so many times, always from the beginning."""


def measure_speed(
    target: ExecutionTarget, text: Text, context: int | None, *, threads: int, progress: Progress
) -> tuple[Measurement, ...]:
    """Measure the artifact in PROCESSES independent processes; their differences are the noise."""
    prompt, positions = fitting_lengths(PROMPT, POSITIONS, context)
    request = MeasureRequest(
        prompt_tokens=prompt, generate_tokens=positions, repetitions=ROUNDS, threads=threads,
        tokens=tuple(int(t) for t in text.ids[: prompt + positions]), bandwidth=False,
    )  # fmt: skip
    found = []
    for number in range(PROCESSES):
        found.append(target.measure(request))
        progress("measurement", number + 1, PROCESSES)
    return tuple(found)


def speed(measurements: Sequence[Measurement]) -> Speed:
    """Every process's time per token, by the least of each position.

        time = mean over positions of (min over rounds of CPU time)

    All rounds compute the same at a position, so what one of them takes longer is the machine's doing, not the
    artifact's. The mean keeps tokens that take longer than others. The reference work is the least of all processes:
    the CPU is the same, and only its clock should count.
    """
    times = [token_cpu_ms(m) for m in measurements]
    return Speed(tuple(times), min(min(m.reference_cpu_ms) for m in measurements))


def token_cpu_ms(measurement: Measurement) -> float:
    """The equation above for one process."""
    samples = np.array(measurement.decode_cpu_ms).reshape(-1, measurement.generate_tokens)
    return float(samples.min(0).mean())


def figures(
    manifest: Manifest, text: Text, readings: Readings, reference_tokens: tuple[int, ...],
    measurements: Sequence[Measurement],
) -> Figures:  # fmt: skip
    """All that the gate compares."""
    first, own, stock = measurements[0], readings.own, readings.stock
    files = [entry.bytes for name, entry in manifest.files.items() if name in ("model.onnx", "model.onnx.data")]
    return Figures(
        sizes=Sizes(manifest.bytes.weights, manifest.bytes.states, sum(files)),
        layers={path: LayerSize(entry.format, entry.bytes) for path, entry in manifest.recipe.items()},
        text=TextRead(text.name, text.sha256, len(text.ids), len(text.sentences.ends) if text.sentences else None),
        machine=Machine(
            cpu=first.cpu,
            isa=first.isa,
            threads=first.threads,
            ort_version=first.ort_version,
            native=first.native_library is not None,
            runtime=first.runtime,
            # Told by its source, which is also what a device is sent.
            reference_work=_OWN_WORK if first.runtime == SLMC_RUN else file_sha256(Path(reference.__file__))[:12],
        ),
        predictions=Predictions(
            perplexity=own.perplexity,
            top1_agreement=own.agreement(reference_tokens),
            token_by_token_top1=own.token_by_token_top1,
            stock_runtime_top1=stock.agreement(own.best) if stock else None,
            accuracy=own.accuracy,
        ),
        model_memory_bytes=tuple(m.ended.peak_bytes - m.baseline.rss_bytes for m in measurements),
        speed=speed(measurements),
    )
