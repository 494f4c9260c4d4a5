"""--on and the limits of a smaller device: options that commands share, and the execution target that they name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import Manifest
from exporters.artifact.runtimes import ONNXRUNTIME, RUNTIMES, SLMC_RUN, STOCK
from targets.device.limits import refuse_by_forecast
from targets.device.native import foreign_library
from targets.device.quantities import parse_bytes
from targets.remote.agents import PYTHON_AGENT, Agent, RuntimeAgent
from targets.remote.device import Device, DeviceLimits
from targets.remote.emulation import emulated_python
from targets.remote.transport import ALLOWED, LOCAL, parse_transport
from targets.runtime.program import given_program, serving_program
from toolchain.cli.console import Console
from toolchain.cli.options import stack
from toolchain.delivery.execution import ExecutionTarget, LocalTarget, RemoteTarget

SYSROOT = Path.home() / ".cache" / "slmc" / "aarch64"
"""Where `python -m targets.remote.sysroot` puts the emulated Python that `--on qemu-aarch64` starts."""

artifact_native = click.option(
    "--artifact-native", is_flag=True, help="Trust the artifact: run the operators and slmc-run that it contains."
)

runtime_option = stack(
    click.option(
        "--runtime",
        type=click.Choice(RUNTIMES),
        default=ONNXRUNTIME,
        help="Runtime: ONNX Runtime with our compiled operators, ONNX Runtime without them, or slmc-run.",
    ),
    click.option("--no-native", "runtime", flag_value=STOCK, help=f"The same as --runtime {STOCK}."),
)

how_options = stack(
    click.option("--remote-python", help="Python interpreter to use there, with numpy, onnxruntime and tokenizers."),
    click.option("--remote-dir", default="", help="Folder for temporary files there. Default: the system's own."),
    click.option("--ssh", help="ssh command with your own options: 'ssh -F FILE'."),
    click.option("--limit-memory", help="Limit memory as on a smaller device: 64MB."),
    click.option(
        "--limit-cores", type=click.IntRange(1, 256), help="Limit the number of cores as on a smaller device."
    ),
)

place_options = stack(
    click.option("--on", help=f"Where to run: {ALLOWED}. Default: on this machine."),
    how_options,
)

on_boards = click.option("--on", multiple=True, help=f"Where to run: {ALLOWED}. Repeatable. Default: here.")

run_options = stack(
    how_options,
    artifact_native,
    click.option("--force", is_flag=True, help="Run even if the forecast says that it does not fit."),
)

execution_options = stack(
    place_options,
    artifact_native,
    click.option("--force", is_flag=True, help="Run even if the forecast says that it does not fit."),
)


@dataclass(frozen=True)
class ExecutionOptions:
    """What `execution_options` gave."""

    on: str | None = None
    remote_python: str | None = None
    remote_dir: str = ""
    ssh: str | None = None
    limit_memory: str | None = None
    limit_cores: int | None = None
    force: bool = False
    artifact_native: bool = False

    @property
    def limits(self) -> DeviceLimits:
        if self.limit_memory is None:
            return DeviceLimits(None, self.limit_cores)
        return DeviceLimits(parse_bytes(self.limit_memory, "--limit-memory"), self.limit_cores)


@contextlib.contextmanager
def execution_target(
    place: ExecutionOptions, console: Console, artifact: Path, manifest: Manifest, *, runtime: str, speed: bool
) -> Iterator[ExecutionTarget]:
    """The machine that the options name, with the artifact, whose files have been checked, on it.

    Args:
        runtime: one of exporters.artifact.runtimes.
        speed: whether nothing but speed is asked for, which an emulator cannot tell.

    Raises:
        SlmcError, NotAvailable, ConstraintsNotMet: the options are wrong, the machine cannot be used, it is too small.
    """
    limits = place.limits
    if not place.force:
        refuse_by_forecast(manifest, limits.memory_bytes, runtime)
    trusted = place.artifact_native
    here = LocalTarget(artifact, manifest, runtime=runtime, trusted=trusted)
    if place.on is None and limits == DeviceLimits():
        say_whose_operators(console, artifact, native=runtime == ONNXRUNTIME, trusted=trusted)
        yield here
        return
    agent: Agent = PYTHON_AGENT
    if runtime == SLMC_RUN:
        # A device runs what it was sent for its platform; this very machine does not unless it was asked to.
        own = trusted or place.on not in (None, LOCAL)
        agent = RuntimeAgent(lambda platform: serving_program(artifact, manifest, platform, own=own))
    with visited(place, console, speed=speed, agent=agent) as device:
        name = device.transport.name
        console.progress(f"{name}: sending", 0, 1)
        device.send(artifact, manifest, native=runtime == ONNXRUNTIME)
        console.progress(f"{name}: sending", 1, 1)
        yield RemoteTarget(device, limits, here, trusted=trusted)


@contextlib.contextmanager
def visited(place: ExecutionOptions, console: Console, *, speed: bool, agent: Agent = PYTHON_AGENT) -> Iterator[Device]:
    """The machine that the options name, connected to; agent: what is started there.

    Raises:
        SlmcError, NotAvailable: the options are wrong, the machine cannot be used.
    """
    transport = parse_transport(
        place.on or LOCAL, python=place.remote_python, ssh=place.ssh, emulated_python=lambda: emulated_python(SYSROOT),
        needs_python=agent.needs_python,
    )  # fmt: skip
    if speed and not transport.speed_counts:
        raise SlmcError(
            f"--on {place.on}: an emulator says nothing about speed; use 'slmc validate' for what it can tell"
        )
    with Device(transport, place=place.remote_dir, agent=agent) as device:
        console.detail(f"{transport.name}: {device.platform}, Python {device.facts.python}, {device.facts.packages}")
        yield device


def agent_of(programs: Mapping[str, Path]) -> Agent:
    """What is started on a board: slmc-run, where programs are given by platform, else our Python."""
    return RuntimeAgent(partial(given_program, programs)) if programs else PYTHON_AGENT


def say_whose_operators(console: Console, artifact: Path, *, native: bool, trusted: bool) -> None:
    """A note where the operators that an artifact brings are not run."""
    if native and not trusted and foreign_library(artifact):
        console.note(
            f"note: {artifact} brings compiled operators of another build than this slmc's; they are code and are not "
            "run: plain ONNX Runtime serves. If you trust whom it is from, give --artifact-native"
        )
