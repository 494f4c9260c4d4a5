"""Where an artifact runs, and on which runtime: on this machine, or on a device that it was sent to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Protocol, TypeVar

from exporters.artifact.manifest import Manifest
from exporters.artifact.runtimes import ONNXRUNTIME, SLMC_RUN, STOCK
from targets.device.evaluation import Evaluation, EvaluationRequest, evaluate
from targets.device.measurement import Measurement, MeasureRequest
from targets.device.native import platform_name
from targets.measure import child
from targets.remote.device import MODEL, Device, DeviceLimits, LimitFound
from targets.runtime.program import EVALUATION, MEASUREMENT, serving_program, worker_words

R = TypeVar("R", MeasureRequest, EvaluationRequest)


class ExecutionTarget(Protocol):
    """A machine that evaluates and measures one artifact on one runtime."""

    @property
    def name(self) -> str | None:
        """The transport's name; None for this machine."""

    @property
    def runtime(self) -> str:
        """One of exporters.artifact.runtimes."""

    @property
    def speed_counts(self) -> bool:
        """Whether times measured on it mean anything; not under emulation."""

    @property
    def limit(self) -> LimitFound | None:
        """The memory limit and its peak so far; None without a limit."""

    def evaluate(self, request: EvaluationRequest) -> Evaluation:
        """What the model predicts."""

    def beside(self, runtime: str, request: EvaluationRequest) -> Evaluation | None:
        """The same on another runtime, there or here; None where that cannot be had."""

    def measure(self, request: MeasureRequest) -> Measurement:
        """Speed and memory, in a process of its own."""


class LocalTarget:
    """This machine, without limits."""

    name = None
    speed_counts = True
    limit = None

    def __init__(
        self, artifact: Path, manifest: Manifest, *, runtime: str = ONNXRUNTIME, trusted: bool = False
    ) -> None:
        """trusted: whether what the artifact brings, which is code, may run."""
        self._artifact, self._manifest, self._trusted, self.runtime = artifact, manifest, trusted, runtime

    def evaluate(self, request: EvaluationRequest) -> Evaluation:
        return self._evaluate(self.runtime, request)

    def beside(self, runtime: str, request: EvaluationRequest) -> Evaluation | None:
        return self._evaluate(runtime, request)

    def measure(self, request: MeasureRequest) -> Measurement:
        io = self._manifest.io
        if self.runtime == SLMC_RUN:
            return child.measure(self._artifact, io, request, command=worker_words(self._program(), MEASUREMENT))
        return child.measure(self._artifact, io, _on(self.runtime, request, trusted=self._trusted))

    def _evaluate(self, runtime: str, request: EvaluationRequest) -> Evaluation:
        io = self._manifest.io
        if runtime == SLMC_RUN:
            return child.evaluate(self._artifact, io, request, worker_words(self._program(), EVALUATION))
        return evaluate(self._artifact, MODEL, io, _on(runtime, request, trusted=self._trusted))

    def _program(self) -> Path:
        return serving_program(self._artifact, self._manifest, platform_name(), own=self._trusted).resolve()


class RemoteTarget:
    """A device that the artifact was sent to. What cannot run there is compared with what runs `here`."""

    def __init__(self, device: Device, limits: DeviceLimits, here: LocalTarget, *, trusted: bool = False) -> None:
        self._trusted, self._here = trusted, here
        self.name, self.speed_counts, self.runtime = device.transport.name, device.transport.speed_counts, here.runtime
        self._device, self._limits = device, limits
        self.limit: LimitFound | None = None

    def evaluate(self, request: EvaluationRequest) -> Evaluation:
        return self._evaluate(self.runtime, request)

    def beside(self, runtime: str, request: EvaluationRequest) -> Evaluation | None:
        if self.runtime == SLMC_RUN:
            return self._here.beside(runtime, request)
        return None if runtime == SLMC_RUN else self._evaluate(runtime, request)

    def measure(self, request: MeasureRequest) -> Measurement:
        asked = _on(self.runtime, request, trusted=self._trusted)
        measurement, self.limit = self._device.measure(asked, self._limits)
        return measurement

    def _evaluate(self, runtime: str, request: EvaluationRequest) -> Evaluation:
        asked = _on(runtime, request, trusted=self._trusted)
        evaluation, self.limit = self._device.evaluate(asked, self._limits)
        return evaluation


def _on(runtime: str, request: R, *, trusted: bool) -> R:
    """The request with the operators that a runtime is to use."""
    return dataclasses.replace(request, native=runtime != STOCK, artifact_native=trusted)
