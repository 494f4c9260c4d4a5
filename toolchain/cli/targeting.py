"""slmc targets: list CPU targets, show one with its sources, probe this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import click

from targets.cpus.catalog import HOST, cpu_names, named_cpu
from targets.cpus.probe import probe
from targets.cpus.spec import Cpu, to_toml
from targets.device.bandwidth import read_bandwidth_gbs
from toolchain.cli.console import Console
from toolchain.cli.options import PATH, command
from toolchain.files.outputs import TARGET, check_output_file
from toolchain.files.workspace import write_whole

_TABLES = {"bandwidths", "costs", "sources"}


@click.group("targets")
def targets_group() -> None:
    """CPU targets: list them, show one, probe this machine."""


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
@click.option("--quick", is_flag=True, help="Fewer formats and shapes; one thread.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@command
def targets_probe(console: Console, output: Path | None, quick: bool, force: bool) -> int:
    """Measure this machine: bandwidth by working set and, with -o, what every operator costs (minutes of all cores)."""
    if output is None:
        cpu = named_cpu(HOST)
        _show(console, dataclasses.replace(cpu, bandwidth_gbs=round(read_bandwidth_gbs(cpu.last_cache_bytes), 2)))
        return 0
    check_output_file(output, TARGET, force=force)
    with console.working():
        cpu = dataclasses.replace(probe(quick=quick, progress=console.progress), name=output.stem)
    write_whole(output, to_toml(cpu))
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
