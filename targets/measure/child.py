"""Measures an artifact in a clean child process, whose memory and time are those of the model and nothing else."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.manifest import Io
from exporters.artifact.parsing import parse
from targets.device.evaluation import EVALUATION_TIMEOUT_S, Evaluation, EvaluationJob, EvaluationRequest
from targets.device.host import known_core
from targets.device.measurement import Job, Measurement, MeasureRequest

_PACKAGES = Path(__file__).resolve().parents[2]
_ERRORS: dict[str, type[SlmcError]] = {"SlmcError": SlmcError, "NotAvailable": NotAvailable}


def worker_command() -> tuple[str, ...]:
    """The child process; another command that speaks the same (ssh, an emulator, slmc-run) may stand in its place."""
    return (sys.executable, "-m", "targets.device.worker")


def measure(
    artifact: Path,
    io: Io,
    request: MeasureRequest,
    *,
    graph: str = "model.onnx",
    command: Sequence[str] | None = None,
) -> Measurement:
    """Speed and memory of an artifact on this machine.

    Raises:
        SlmcError: the artifact does not open or run, or the child failed; its last line of stderr is in the text.
        NotAvailable: something is missing here, the child was killed by a signal, or the time was over.
    """
    job = Job(str(artifact.resolve()), graph, io, request)
    document = _ask(job, "measurement", command or worker_command(), request.timeout_s)
    result: Measurement = parse(Measurement, document, "measurement")
    return dataclasses.replace(result, cpu=known_core(result.cpu))


def evaluate(
    artifact: Path, io: Io, request: EvaluationRequest, command: Sequence[str], *, graph: str = "model.onnx"
) -> Evaluation:
    """What the model predicts, asked of another process.

    Raises:
        SlmcError, NotAvailable: as `measure`.
    """
    job = EvaluationJob(str(artifact.resolve()), graph, io, request)
    result: Evaluation = parse(Evaluation, _ask(job, "evaluation", command, EVALUATION_TIMEOUT_S), "evaluation")
    return result


def _ask(job: Job | EvaluationJob, wanted: str, command: Sequence[str], timeout_s: float) -> Any:
    what = job.artifact or "the empty runtime"
    try:
        done = subprocess.run(
            command,
            input=json.dumps(dataclasses.asdict(job)),
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            # Python puts the working directory on the module path: the child finds this very copy of the packages.
            cwd=_PACKAGES,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotAvailable(
            f"{what}: the measured process did not end within {timeout_s:g} s and was stopped; "
            "ask for fewer tokens or repetitions, or give it more time"
        ) from error
    except OSError as error:
        raise NotAvailable(f"{what}: cannot start {command[0]}: {error}") from error
    if done.returncode < 0:
        raise NotAvailable(_killed(what, -done.returncode, done.stderr))
    document = _document(done.stdout)
    if "error" in document:
        kind, text = document["error"]["kind"], document["error"]["text"]
        raise _ERRORS.get(kind, SlmcError)(text)
    if done.returncode != 0 or wanted not in document:
        raise SlmcError(
            f"{what}: the measured process failed with exit code {done.returncode}: {_last_line(done.stderr)}"
        )
    return document[wanted]


def _killed(what: str, number: int, stderr: str) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    hint = (
        "; the system does this when memory runs out: use a smaller model or free memory" if name == "SIGKILL" else ""
    )
    return f"{what}: the measured process was killed by {name}{hint} (it last said: {_last_line(stderr)})"


def _document(stdout: str) -> dict[str, Any]:
    try:
        document = json.loads(stdout)
    except json.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _last_line(stderr: str) -> str:
    return next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "nothing on stderr")
