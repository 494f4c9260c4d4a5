"""Figures of one artifact on one machine, and the baseline file in git that keeps them."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import Producer
from exporters.artifact.opening import read_json
from exporters.artifact.parsing import parse
from exporters.artifact.runtimes import ONNXRUNTIME

SCHEMA_VERSION = 1
MODEL, ARTIFACT = "fp32 model", "artifact itself"
"""Whose best tokens the baseline keeps."""


@dataclass(frozen=True)
class Sizes:
    """Bytes: weights and states as stored; file is model.onnx + model.onnx.data as they lie there."""

    weights: int
    states: int
    file: int


@dataclass(frozen=True)
class LayerSize:
    format: str
    bytes: int


@dataclass(frozen=True)
class TextRead:
    """The text that was read: its name, SHA-256, and how many of its tokens, and sentences if it is read as such."""

    name: str
    sha256: str
    tokens: int
    sentences: int | None = None


@dataclass(frozen=True)
class Machine:
    """What times and memory depend on besides the artifact; reference_work: which one times are counted in."""

    cpu: str
    isa: str
    threads: int
    ort_version: str
    native: bool
    reference_work: str
    runtime: str = ONNXRUNTIME


@dataclass(frozen=True)
class Predictions:
    """perplexity on the text; top1_agreement with the reference tokens; the other two: the ways to run it agree.

    token_by_token_top1: None where a text must come in one call. stock_runtime_top1: None where no operators ran, since
    the plain runtime is not compared with itself. accuracy: of a classifier, whose perplexity is that of
    its labels, and whose reference tokens are classes.
    """

    perplexity: float
    top1_agreement: float
    token_by_token_top1: float | None
    stock_runtime_top1: float | None
    accuracy: float | None = None


@dataclass(frozen=True)
class Speed:
    """CPU milliseconds per generated token, one value per process, and the reference work's least over all of them."""

    token_cpu_ms: tuple[float, ...]
    reference_cpu_ms: float

    @property
    def normalised(self) -> tuple[float, ...]:
        """Time per token divided by that of the reference work, so that the speed of the machine cancels."""
        return tuple(time / self.reference_cpu_ms for time in self.token_cpu_ms)


@dataclass(frozen=True)
class Figures:
    """All that is compared. model_memory_bytes: peak less the empty runtime, one value per process."""

    sizes: Sizes
    layers: dict[str, LayerSize]
    text: TextRead
    machine: Machine
    predictions: Predictions
    model_memory_bytes: tuple[int, ...]
    speed: Speed


@dataclass(frozen=True)
class Baseline:
    """A baseline file. reference_tokens: best tokens [n] of the fp32 model, or of the artifact of that time.

    figures: on the first machine; boards: of the same artifact on others.
    """

    schema_version: int
    producer: Producer
    created: str
    artifact: str
    reference: str
    reference_tokens: str
    figures: Figures
    boards: tuple[Figures, ...] = ()

    def to_json(self) -> str:
        document = dataclasses.asdict(self)
        if not self.boards:  # as files have always been
            del document["boards"]
        return json.dumps(document, indent=1, sort_keys=True) + "\n"

    def on(self, machine: Machine) -> Figures:
        """The figures of this machine; those of the first one where there are none, which says what differs."""
        return next((found for found in (self.figures, *self.boards) if found.machine == machine), self.figures)


def read_baseline(path: Path) -> Baseline:
    """A baseline file, read strictly.

    Raises:
        SlmcError: no such file, another version, or damaged; the text says where.
    """
    raw = read_json(path, "restore it from git, or write a first baseline with --update-baseline")
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise SlmcError(
            f"{path}: schema_version is {version!r}, this slmc reads {SCHEMA_VERSION}; "
            "write it again with --update-baseline"
        )
    baseline: Baseline = parse(Baseline, raw, str(path))
    text = baseline.figures.text
    if len(unpacked(baseline.reference_tokens, path)) != (text.sentences or text.tokens):
        raise SlmcError(f"{path}: reference_tokens are not as many as text.tokens; restore it from git")
    if not all(map(_measured, (baseline.figures, *baseline.boards))):
        raise SlmcError(f"{path}: it holds no measurements; write it again with --update-baseline")
    return baseline


def _measured(figures: Figures) -> bool:
    speed = figures.speed
    times = (*speed.token_cpu_ms, speed.reference_cpu_ms)
    return bool(speed.token_cpu_ms and figures.model_memory_bytes and min(times) > 0)


def packed(tokens: tuple[int, ...]) -> str:
    """Tokens as text: base64 of zlib of little-endian int32."""
    return base64.b64encode(zlib.compress(np.array(tokens, "<i4").tobytes(), 9)).decode("ascii")


def unpacked(text: str, path: Path) -> tuple[int, ...]:
    """Tokens of such a text.

    Raises:
        SlmcError: it is none.
    """
    try:
        return tuple(np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), "<i4").tolist())
    except (binascii.Error, zlib.error, ValueError) as error:
        raise SlmcError(f"{path}: reference_tokens are damaged ({error}); restore it from git") from error
