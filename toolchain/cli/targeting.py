"""slmc targets: list CPU targets, show one with its sources, probe this machine or another."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from exporters.artifact.errors import SlmcError
from targets.cpus.catalog import HOST, cpu_names, named_cpu
from targets.cpus.cost import SESSION
from targets.cpus.spec import Cpu
from targets.device.bandwidth import read_bandwidth_gbs
from toolchain.cli.console import Console
from toolchain.cli.execution import ExecutionOptions, agent_of, place_options, visited
from toolchain.cli.options import PATH, command
from toolchain.cli.probing import probed, visit
from toolchain.delivery.operators import operator_libraries, runtime_programs
from toolchain.files.outputs import TARGET, check_output_file

_TABLES = {"bandwidths", "costs", "sources"}


@click.group("targets")
def targets_group() -> None:
    """CPU targets: list them, show one, probe a machine."""


@targets_group.command("ls")
@command
def targets_ls(console: Console) -> int:
    """Every target's name."""
    names = cpu_names()
    console.result(list(names), "\n".join(names))
    return 0


@targets_group.command("show")
@click.argument("name", default=HOST)
@command
def targets_show(console: Console, name: str) -> int:
    """The facts of a target with their sources; those of this machine are probed."""
    _show(console, named_cpu(name))
    return 0


@targets_group.command("probe")
@click.option("-o", "--output", type=PATH, help="Measure operators too, and write a target file for --target.")
@click.option("--quick", is_flag=True, help="Fewer formats and shapes, one thread: under three minutes.")
@click.option("--native", multiple=True, type=PATH, help="libslmc_ops.so of the board's platform. Repeatable.")
@click.option("--no-native", is_flag=True, help="Plain ONNX Runtime, without compiled operators.")
@click.option(
    "--runtime",
    multiple=True,
    type=PATH,
    help="Measure slmc-run, which needs nothing there; or a file: slmc-run of the board's platform. Repeatable.",
)
@click.option("--resume", is_flag=True, help="Go on where an interrupted probe stopped.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@place_options
@command
def targets_probe(
    console: Console, output: Path | None, quick: bool, native: tuple[Path, ...], no_native: bool,
    runtime: tuple[Path, ...], resume: bool, force: bool, **place: Any,
) -> int:  # fmt: skip
    """Measure a machine, this one or another --on: bandwidth by working set and, with -o, what every operator costs.

    It takes minutes of all cores there. Interrupted, also by a broken connection, it goes on with --resume. What runs
    the operators is ONNX Runtime, or slmc-run with --runtime; costs of the one say little of the other.
    """
    where = ExecutionOptions(**place)
    if output is None:
        if where != ExecutionOptions() or quick or runtime:
            raise SlmcError("-o is missing: give the target file to write, as -o board.toml")
        cpu = named_cpu(HOST)
        _show(console, dataclasses.replace(cpu, bandwidth_gbs=round(read_bandwidth_gbs(cpu.last_cache_bytes), 2)))
        return 0
    check_output_file(output, TARGET, force=force or resume)
    if runtime and (native or no_native):
        raise SlmcError(
            "--runtime measures slmc-run, which has its operators in it; leave --native and --no-native away"
        )
    agent = agent_of(runtime_programs(runtime))
    libraries = {} if no_native or runtime else operator_libraries(native)
    with console.working(), visited(where, console, speed=agent.needs_python, agent=agent) as device:
        if not device.transport.speed_counts:
            console.note(f"note: {device.transport.name} is no board: its figures only show that a probe runs there")
        found = visit(device, console, libraries, where.limits)
        cpu = probed(found, console, output, quick=quick, resume=resume)
    console.note(f"{output}: {len(cpu.costs)} measured costs; use it with --target {output}")
    _show(console, cpu)
    return 0


def _show(console: Console, cpu: Cpu) -> None:
    facts = {key: value for key, value in dataclasses.asdict(cpu).items() if value is not None}
    console.result(facts, "\n".join(_lines(cpu)))


def _lines(cpu: Cpu) -> Iterator[str]:
    for field in dataclasses.fields(cpu):
        value, source = getattr(cpu, field.name), cpu.sources.get(field.name)
        if value is not None and field.name not in _TABLES:
            yield f"{field.name}: {value}" + (f"    ({source})" if source else "")
    for row in cpu.bandwidths:
        who = "1 thread reads" if row.threads == 1 else f"{row.threads} threads read"
        yield f"{who} {row.gbs:g} GB/s from {row.level}, {row.working_set_bytes} bytes each"
    if cpu.costs:
        operators = dict.fromkeys(row.operator for row in cpu.costs)
        yield f"{len(cpu.costs)} measured costs of {', '.join(operators)}    ({cpu.sources.get('costs', 'no source')})"
        calls = [row for row in cpu.costs if row.operator == SESSION and row.threads == 1]
        yield from (f"a call with {row.rows} states takes {row.us:g} us beside its nodes" for row in calls)
        spreads = sorted(row.spread for row in cpu.costs)
        yield f"between turns they differed by {spreads[len(spreads) // 2]:.0%}, at most {spreads[-1]:.0%}"
