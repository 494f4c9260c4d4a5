"""Where an artifact runs: on this machine, or on a device that it was sent to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Protocol

from exporters.artifact.manifest import Io
from targets.device.evaluation import Evaluation, EvaluationRequest, evaluate
from targets.device.measurement import Measurement, MeasureRequest
from targets.measure.child import measure
from targets.remote.device import MODEL, Device, DeviceLimits, LimitFound


class ExecutionTarget(Protocol):
    """A machine that evaluates and measures one artifact."""

    @property
    def name(self) -> str | None:
        """The transport's name; None for this machine."""

    @property
    def speed_counts(self) -> bool:
        """Whether times measured on it mean anything; not under emulation."""

    @property
    def limit(self) -> LimitFound | None:
        """The memory limit and its peak so far; None without a limit."""

    def evaluate(self, request: EvaluationRequest) -> Evaluation:
        """What the model predicts."""

    def measure(self, request: MeasureRequest) -> Measurement:
        """Speed and memory, in a process of its own."""


class LocalTarget:
    """This machine, without limits."""

    name = None
    speed_counts = True
    limit = None

    def __init__(self, artifact: Path, io: Io, *, trusted: bool = False) -> None:
        """trusted: whether the artifact's own operators may run."""
        self._artifact, self._io, self._trusted = artifact, io, trusted

    def evaluate(self, request: EvaluationRequest) -> Evaluation:
        request = dataclasses.replace(request, artifact_native=self._trusted)
        return evaluate(self._artifact, MODEL, self._io, request)

    def measure(self, request: MeasureRequest) -> Measurement:
        return measure(self._artifact, self._io, dataclasses.replace(request, artifact_native=self._trusted))


class RemoteTarget:
    """A device that the artifact was sent to."""

    def __init__(self, device: Device, limits: DeviceLimits, *, trusted: bool = False) -> None:
        self._trusted = trusted
        self.name, self.speed_counts = device.transport.name, device.transport.speed_counts
        self._device, self._limits = device, limits
        self.limit: LimitFound | None = None

    def evaluate(self, request: EvaluationRequest) -> Evaluation:
        evaluation, self.limit = self._device.evaluate(
            dataclasses.replace(request, artifact_native=self._trusted), self._limits
        )
        return evaluation

    def measure(self, request: MeasureRequest) -> Measurement:
        measurement, self.limit = self._device.measure(
            dataclasses.replace(request, artifact_native=self._trusted), self._limits
        )
        return measurement
