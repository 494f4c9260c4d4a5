"""Where an artifact is measured before it is finished: here, or on boards, whose answers are kept."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from exporters.artifact.manifest import MANIFEST_NAME, SCHEMA_VERSION, Bytes, Io, Manifest, Producer, Source
from exporters.artifact.parsing import parse
from targets.cpus.spec import Cpu
from targets.device.measurement import Measurement, MeasureRequest, fitting_lengths, prompt_chunk
from targets.device.verify import SUMS_NAME, file_sha256
from targets.measure.child import measure
from toolchain.delivery import package
from toolchain.delivery.visits import VISITS, together, unsure
from toolchain.files.journal import KeyedLines
from toolchain.model.text import Text

MEASURED_TOKENS = 1024
"""Of the text that a measurement reads."""


class Board(Protocol):
    """A machine that an artifact is built for."""

    @property
    def name(self) -> str:
        """As the user wrote it."""

    @property
    def cpu(self) -> Cpu:
        """What it is, and what operators cost on it."""

    def measure(self, artifact: Path, manifest: Manifest, request: MeasureRequest) -> Measurement:
        """Speed and memory of an artifact there."""


@dataclass(frozen=True)
class OnCpu:
    """A measurement, the machine that it was made on, and how many visits there it is made of."""

    cpu: Cpu
    measurement: Measurement
    visits: int = 1


class Measurer(Protocol):
    """Measures an artifact that lies in a staging folder, with neither manifest nor sums."""

    def measure(self, staging: Path, io: Io, text: Text, vocabulary: int, threads: int) -> tuple[OnCpu, ...]:
        """Speed and memory while it reads a real text, on every machine that counts."""


def request_for(io: Io, text: Text, vocabulary: int, threads: int) -> MeasureRequest:
    """The measurement that a manifest's figures come from."""
    lengths = fitting_lengths(MeasureRequest.prompt_tokens, MeasureRequest.generate_tokens, io.context)
    tokens = tuple(int(t) for t in text.ids[:MEASURED_TOKENS])
    return MeasureRequest(*lengths, threads=threads, tokens=tokens, chunk_tokens=prompt_chunk(io, vocabulary))


class MeasuredHere:
    """This machine, in a clean child process, whatever the target."""

    def __init__(self, target: Cpu) -> None:
        self._target = target

    def measure(self, staging: Path, io: Io, text: Text, vocabulary: int, threads: int) -> tuple[OnCpu, ...]:
        return (OnCpu(self._target, measure(staging, io, request_for(io, text, vocabulary, threads))),)


class MeasuredOnBoards:
    """Boards, one after the other. What they said of a graph is kept in a file: a build that goes on asks once.

    limit_ms: on the median time per token; an artifact whose time does not differ from it by more than by chance is
    measured again, as is one whose measurement is in doubt.
    """

    def __init__(self, boards: Sequence[Board], file: Path, limit_ms: float | None = None) -> None:
        self._boards, self._limit_ms = boards, limit_ms
        self._kept: KeyedLines[Measurement] = KeyedLines(
            file, "measurement", lambda raw: parse(Measurement, raw, str(file)), dataclasses.asdict
        )

    def measure(self, staging: Path, io: Io, text: Text, vocabulary: int, threads: int) -> tuple[OnCpu, ...]:
        request = dataclasses.replace(request_for(io, text, vocabulary, threads), bandwidth=False)
        graph = "".join(file_sha256(path) for path in sorted(staging.glob("model.onnx*")))
        with provisional_manifest(staging, io) as manifest:
            found = []
            for number, board in enumerate(self._boards):
                visits = self._visits(board, f"{graph} {number}", lambda b=board: b.measure(staging, manifest, request))  # type: ignore[misc]
                found.append(OnCpu(board.cpu, together(visits, board.cpu.wait or 1.0), len(visits)))
            return tuple(found)

    def _visits(self, board: Board, key: str, visit: Callable[[], Measurement]) -> list[Measurement]:
        visits: list[Measurement] = []
        wait = board.cpu.wait or 1.0
        while not visits or (len(visits) < VISITS and unsure(together(visits, wait), self._limit_ms, wait)):
            own = f"{key} {len(visits)}" if visits else key
            kept = self._kept.get(own)
            visits.append(self._kept.add(own, visit()) if kept is None else kept)
        return visits


@contextlib.contextmanager
def provisional_manifest(staging: Path, io: Io) -> Iterator[Manifest]:
    """What a device must know of an artifact that is not measured yet, in its folder for as long as the body takes."""
    manifest = Manifest(
        schema_version=SCHEMA_VERSION, producer=Producer("slmc", version("slmc")), created=package.now(),
        source=Source("", "", "", 0), io=io, recipe={}, bytes=Bytes(0, 0, 0, 0), quality=None, parity=None,
        measured=None, constraints=(), files=package.write_sums(staging),
    )  # fmt: skip
    (staging / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    try:
        yield manifest
    finally:
        for name in (MANIFEST_NAME, SUMS_NAME):
            (staging / name).unlink(missing_ok=True)
