"""Probing a machine from the command line: what is measured is kept until the target file is whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from targets.cpus.probe import machine_facts, probe
from targets.cpus.spec import Cpu, to_toml
from targets.device.probing import ProbeFacts, Sampled
from targets.remote.device import Device, DeviceLimits
from targets.remote.probing import ProbeVisit
from toolchain.cli.console import Console
from toolchain.files.journal import KeyedLines
from toolchain.files.workspace import workspace, write_whole


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A machine that can be probed, and what it says of itself."""

    machine: ProbeVisit
    facts: ProbeFacts
    empty_runtime_bytes: int
    limits: DeviceLimits


def visit(device: Device, console: Console, libraries: Mapping[str, Path], limits: DeviceLimits) -> Visit:
    """Send what a probe needs, and ask the machine what it is.

    Args:
        libraries: compiled operators by platform; none where stock ones, or slmc-run, are to be measured.

    Raises:
        SlmcError, NotAvailable: it cannot run our packages, or the connection was cut.
    """
    machine = ProbeVisit(device, libraries, limits)
    if libraries and machine.library is None:
        console.note(
            f"note: no compiled operators for {device.platform}, so that plain ONNX Runtime is measured there; "
            "give them with --native FILE ('make native-aarch64' builds those of 64-bit Arm)"
        )
    facts, empty = machine_facts(machine)
    return Visit(machine=machine, facts=facts, empty_runtime_bytes=empty, limits=limits)


def probed(found: Visit, console: Console, output: Path, *, quick: bool, resume: bool) -> Cpu:
    """Measure a machine and write its target file. Interrupted, it leaves a work folder from which `resume` goes on.

    Raises:
        SlmcError, NotAvailable: the connection was cut, or `resume` finds another machine.
    """
    inputs = {
        "cpu": found.facts.cpu.model, "kernels": found.facts.kernels, "quick": quick,
        "runtime": found.facts.runtime, "limits": dataclasses.asdict(found.limits), "slmc": version("slmc"),
    }  # fmt: skip
    with workspace(output, inputs, resume=resume) as folder:
        kept = KeyedLines(folder / "probe.jsonl", "sampled", lambda raw: Sampled(**raw), dataclasses.asdict)
        cpu = probe(
            found.machine, found.facts, kept, name=output.stem, empty_runtime_bytes=found.empty_runtime_bytes,
            quick=quick, most_bytes=found.limits.memory_bytes, progress=console.progress,
        )  # fmt: skip
        write_whole(output, to_toml(cpu))
    return cpu
