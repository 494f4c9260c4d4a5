"""Another machine at work: files sent and checked there, the measured process run there, its answer brought back."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from exporters.artifact.errors import ConstraintsNotMet, NotAvailable, SlmcError
from exporters.artifact.manifest import Io, Manifest
from exporters.artifact.parsing import parse
from targets.device.evaluation import EVALUATION_TIMEOUT_S, Evaluation, EvaluationJob, EvaluationRequest
from targets.device.host import known_core
from targets.device.measurement import Job, Measurement, MeasureRequest
from targets.device.native import machine_platform
from targets.device.quantities import bytes_text
from targets.remote.agents import PACKAGES, PYTHON_AGENT, Agent
from targets.remote.connection import killed
from targets.remote.shipment import ARTIFACT, Parcel
from targets.remote.transport import LOCAL, Transport, last_line
from targets.runtime.program import EVALUATION, MEASUREMENT

MODEL: Final = "model.onnx"
SLACK_BYTES: Final = 2**20
SLOWEST_BYTES_PER_S: Final = 1e5
ANSWER_S: Final = 60.0
_BLOCK_BYTES: Final = 1 << 20
_KINDS: Final[dict[str, type[SlmcError]]] = {"SlmcError": SlmcError, "NotAvailable": NotAvailable}

R = TypeVar("R", MeasureRequest, EvaluationRequest)


@dataclass(frozen=True)
class DeviceLimits:
    """A smaller device than the machine is: bytes of memory, cores; None is no limit."""

    memory_bytes: int | None = None
    cores: int | None = None


NO_LIMITS: Final = DeviceLimits()


@dataclass(frozen=True)
class Facts:
    """What a device says of itself; place: the folder for temporary files, with free_bytes of room."""

    python: str
    system: str
    machine: str
    packages: dict[str, str | None]
    place: str
    free_bytes: int
    cores: int


@dataclass(frozen=True)
class LimitFound:
    """How memory was limited and what came of it; killed: the process was ended because it needed more."""

    method: str
    limit_bytes: int
    peak_bytes: int | None
    killed: bool


@dataclass(frozen=True)
class Ran:
    """A program that ran there and ended."""

    returncode: int
    stdout: str
    stderr: str
    timed_out: bool
    limit: LimitFound | None


class Device:
    """One visit to a machine: a connection, and a folder there that goes with it. Use as a context manager.

    Args:
        place: the folder there for temporary files; the machine's own if empty.
        answer_s: how long it may take to answer what needs no work.
        agent: what is started there.
    """

    def __init__(
        self, transport: Transport, *, place: str = "", answer_s: float = ANSWER_S, agent: Agent = PYTHON_AGENT
    ) -> None:
        self.transport, self._place, self._answer_s = transport, place, answer_s
        self._agent = agent
        self._folder: str | None = None
        self._io: Io | None = None

    def __enter__(self) -> Device:
        self._connection = self._agent.open(self.transport, self._place)
        try:
            with self._connection.deadline("did not answer", self._answer_s):
                self._agent.begin(self._connection)
                reply = self._connection.ask({"do": "facts", "packages": list(PACKAGES), "place": self._place})
            self.facts: Facts = parse(Facts, reply, f"{self.transport.name}: facts")
            self._agent.check(self.transport, self.facts.python, self.facts.packages)
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """The agent removes its folder; if it was killed or cut off, a second connection does."""
        if not self._connection.close() and self._folder is not None:
            self._connection.remove(self._agent.left(self._folder))

    @property
    def platform(self) -> str:
        """As artifacts spell it: 'linux-aarch64'."""
        return self.transport.platform or machine_platform(self.facts.system, self.facts.machine)

    def send(self, artifact: Path, manifest: Manifest, *, native: bool = True) -> None:
        """Send an artifact whose files have been checked here, with what it needs there; checked again on arrival.

        Raises:
            NotAvailable: no room there, no operators for that platform, or the connection was cut.
            SlmcError: a file arrived altered.
        """
        self.push(self._agent.parcels(artifact, manifest, self.platform, native=native))
        self._io = manifest.io

    def measure(
        self, request: MeasureRequest, limits: DeviceLimits = NO_LIMITS
    ) -> tuple[Measurement, LimitFound | None]:
        """Speed and memory there, and what became of a limit on memory.

        Raises:
            SlmcError, NotAvailable: as `targets.measure.child.measure`.
            ConstraintsNotMet: it needed more memory than the limit leaves, and was stopped.
        """
        job = Job(f"{self._folder}/{ARTIFACT}", MODEL, self._io, self._trusting(request))
        document, limit = self.document("targets.device.worker", job, MEASUREMENT, request.timeout_s, limits)
        measurement: Measurement = parse(Measurement, document, MEASUREMENT)
        return dataclasses.replace(measurement, cpu=known_core(measurement.cpu)), limit

    def evaluate(
        self, request: EvaluationRequest, limits: DeviceLimits = NO_LIMITS, *, timeout_s: float = EVALUATION_TIMEOUT_S
    ) -> tuple[Evaluation, LimitFound | None]:
        """What the model predicts there for the request's tokens.

        Raises:
            as `measure`.
        """
        assert self._io is not None, "send comes first"
        job = EvaluationJob(f"{self._folder}/{ARTIFACT}", MODEL, self._io, self._trusting(request))
        document, limit = self.document("targets.device.evaluation", job, EVALUATION, timeout_s, limits)
        return parse(Evaluation, document, EVALUATION), limit

    def _trusting(self, request: R) -> R:
        """A device runs what it was sent for its platform; this very machine does not unless it was asked to."""
        if self.transport.name == LOCAL:
            return request
        return dataclasses.replace(request, artifact_native=True)

    def push_tools(self, library: Path | None) -> str:
        """Send what a probe needs beside its graphs; library: compiled operators, for an agent that takes some.

        Raises:
            as `send`.
        """
        return self.push(self._agent.tools(library))

    def push(self, parcels: Sequence[Parcel]) -> str:
        """Send files into this visit's folder, whose name there is returned.

        Raises:
            as `send`.
        """
        needed = sum(parcel.bytes for parcel in parcels) + SLACK_BYTES
        if needed > self.facts.free_bytes:
            raise NotAvailable(
                f"{self.transport.name}: {self.facts.place} has {bytes_text(self.facts.free_bytes)} free, "
                f"{bytes_text(needed)} are needed; free some, or name another folder with --remote-dir"
            )
        self._folder = self._folder or f"{self.facts.place}/slmc-{uuid.uuid4().hex}"
        with self._connection.deadline("did not take the files", self._answer_s + needed / SLOWEST_BYTES_PER_S):
            self._push(parcels, self._folder)
        return self._folder

    def _push(self, parcels: Sequence[Parcel], folder: str) -> None:
        files = [(parcel.name, parcel.bytes, parcel.sha256) for parcel in parcels]
        self._connection.send(json.dumps({"do": "receive", "folder": folder, "files": files}).encode() + b"\n")
        for parcel in parcels:
            self._push_file(parcel)
        self._connection.reply()

    def _push_file(self, parcel: Parcel) -> None:
        left = parcel.bytes
        with parcel.path.open("rb") as file:
            while left:
                block = file.read(min(left, _BLOCK_BYTES))
                if not block:
                    raise SlmcError(f"{parcel.path}: became shorter while it was sent; repeat the command")
                self._connection.send(block)
                left -= len(block)

    def document(
        self, module: str, job: Any, wanted: str, timeout_s: float, limits: DeviceLimits
    ) -> tuple[Any, LimitFound | None]:
        """What a module of ours answers there to a job: the part of its document that is wanted.

        Raises:
            as `measure`.
        """
        request = {
            "do": "run", "argv": self._agent.words(self.transport, self.facts.place, module, wanted),
            "stdin": json.dumps(dataclasses.asdict(job)), "timeout_s": timeout_s,
            "memory_bytes": limits.memory_bytes, "cores": limits.cores,
        }  # fmt: skip
        with self._connection.deadline("fell silent", timeout_s + self._answer_s):
            ran: Ran = parse(Ran, self._connection.ask(request), f"{self.transport.name}: answer")
        return _found(self.transport.name, ran, wanted, timeout_s), ran.limit


def _found(name: str, ran: Ran, wanted: str, timeout_s: float) -> Any:
    """The part of a program's document that is wanted, or why there is none."""
    if ran.limit is not None and ran.limit.killed:
        raise ConstraintsNotMet(_did_not_fit(name, ran.limit))
    if ran.timed_out:
        raise NotAvailable(
            f"{name}: the measured process did not end within {timeout_s:g} s and was stopped; "
            "ask for fewer tokens or repetitions"
        )
    if ran.returncode < 0:
        raise NotAvailable(f"{name}: {killed(-ran.returncode, ran.stderr, 'the measured process')}")
    with contextlib.suppress(json.JSONDecodeError):
        document = json.loads(ran.stdout)
        if "error" in document:
            raise _KINDS.get(document["error"]["kind"], SlmcError)(f"{name}: {document['error']['text']}")
        if wanted in document:
            return document[wanted]
    raise NotAvailable(f"{name}: the measured process failed with exit code {ran.returncode}: {last_line(ran.stderr)}")


def _did_not_fit(name: str, limit: LimitFound) -> str:
    reached = "" if limit.peak_bytes is None else f" it had reached {bytes_text(limit.peak_bytes)} when"
    return (
        f"{name}: it does not run in {bytes_text(limit.limit_bytes)} of memory:{reached} it was stopped "
        f"({limit.method}); use a smaller model or allow more"
    )
