"""--on of a build: boards that an artifact is built for, their costs measured once and kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from exporters.artifact.manifest import Manifest
from targets.cpus.catalog import HOST, named_cpu
from targets.cpus.spec import Cpu, read_cpu
from targets.device.measurement import Measurement, MeasureRequest
from targets.device.quantities import bytes_text
from targets.remote.agents import PYTHON_AGENT, Agent
from targets.remote.device import NO_LIMITS
from targets.remote.transport import ALLOWED, LOCAL
from toolchain.cli.console import Console
from toolchain.cli.execution import ExecutionOptions, agent_of, how_options, visited
from toolchain.cli.options import stack
from toolchain.cli.probing import Visit, probed, visit
from toolchain.delivery.boards import Board
from toolchain.search.outcome import RoundResult

CACHE = Path.home() / ".cache" / "slmc" / "targets"
"""Where costs of boards are kept, a file for each CPU and build of the operators."""

PLACE = ("remote_python", "remote_dir", "ssh", "limit_memory", "limit_cores")
"""Options that are for all boards."""

board_options = stack(
    click.option("--on", multiple=True, help=f"Build for this machine, and measure there: {ALLOWED}. Repeatable."),
    how_options,
    click.option(
        "--probe",
        type=click.Choice(("quick", "full")),
        default="quick",
        help="How thoroughly operators are measured on a board that has not been probed yet.",
    ),
)


@dataclass(frozen=True)
class ConnectedBoard:
    """A board as the command line names it; every visit is a connection of its own, so that none is held for hours.

    native: whether there are compiled operators for it; agent: what runs there.
    """

    place: ExecutionOptions
    cpu: Cpu
    native: bool
    console: Console
    agent: Agent = PYTHON_AGENT

    @property
    def name(self) -> str:
        return self.place.on or LOCAL

    def measure(self, artifact: Path, manifest: Manifest, request: MeasureRequest) -> Measurement:
        with visited(self.place, self.console, speed=True, agent=self.agent) as device:
            self.console.progress(f"{self.name}: measurement", 0, 1)
            device.send(artifact, manifest, native=self.native)
            request = dataclasses.replace(request, native=self.native)
            found, _ = device.measure(request, self.place.limits)
            self.console.progress(f"{self.name}: measurement", 1, 1)
        return found


def boards_of(
    on: Sequence[str], place: Mapping[str, Any], console: Console, *, target: str, libraries: Mapping[str, Path],
    programs: Mapping[str, Path], probe: str,
) -> tuple[Board, ...]:  # fmt: skip
    """The boards that the options name; none where they name no other machine than this one as it is.

    Args:
        place: the other options of `board_options`, which are for all boards.
        target: a target whose costs count; 'host' for those that are measured on each board.
        libraries: compiled operators by platform.
        programs: slmc-run by platform, which is then what runs on the boards.

    Raises:
        SlmcError, NotAvailable: one cannot be reached or used.
    """
    if not on and ExecutionOptions(**place).limits == NO_LIMITS:
        return ()
    places = [ExecutionOptions(on=name, **place) for name in dict.fromkeys(on or (LOCAL,))]
    agent = agent_of(programs)
    brought = libraries if agent.needs_python else {}
    return tuple(_board(place, console, agent, target=target, libraries=brought, probe=probe) for place in places)


def say_rounds(console: Console, rounds: Sequence[RoundResult]) -> None:
    """What was predicted and measured on every board, round by round, the slowest board first."""
    rows = [
        (
            str(r.round), r.board, _ms(r.predicted_ms), _ms(r.measured_ms), bytes_text(r.predicted_rss_bytes),
            bytes_text(r.measured_rss_bytes), f"{r.energy_uj:.3g} uJ {r.energy}", "holds" if r.met else "does not hold",
        )
        for r in sorted(rounds, key=lambda r: (r.round, -r.measured_ms))
    ]  # fmt: skip
    if rows:
        columns = ("round", "board", "predicted", "time per token", "predicted", "peak memory", "per token", "")
        console.table("measured on boards", columns, rows)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3g} ms"


def _board(
    place: ExecutionOptions, console: Console, agent: Agent, *, target: str, libraries: Mapping[str, Path], probe: str
) -> ConnectedBoard:
    with visited(place, console, speed=True, agent=agent) as device:
        found = visit(device, console, libraries, place.limits)
        cpu = _costs(found, console, quick=probe == "quick") if target == HOST else named_cpu(target)
    if reason := cpu.outdated(found.facts.cpu.model, found.facts.kernels, found.facts.runtime):
        console.note(f"note: {target}: {reason}; leave --target away, and it is measured")
    return ConnectedBoard(place, cpu, found.machine.library is not None, console, agent)


def _costs(found: Visit, console: Console, *, quick: bool) -> Cpu:
    """What operators cost on a board: as it was measured before, or measured now."""
    file = cached_costs(found, quick=quick)
    if file.is_file():
        console.detail(f"{file}: measured before")
        return read_cpu(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    console.note(f"{found.facts.cpu.model}: what operators cost there is measured once, and kept as {file}")
    return probed(found, console, file, quick=quick, resume=True)


def cached_costs(found: Visit, *, quick: bool) -> Path:
    """The file of a board's costs: another CPU, other operators, another runtime or limit is another file."""
    facts = found.facts
    identity = {
        "cpu": dataclasses.asdict(facts.cpu), "kernels": facts.kernels, "runtime": facts.runtime,
        "limits": dataclasses.asdict(found.limits), "quick": quick, "slmc": version("slmc"),
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9]+", "-", facts.cpu.model).strip("-").lower()
    return CACHE / f"{name[:60]}-{digest}.toml"
