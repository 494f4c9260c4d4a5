"""Targets as a user meets them: a probed file, what show says of one, and what stands in the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import Result
from ssh_server import Server

from targets.cpus.catalog import probe_cpu
from targets.cpus.spec import Bandwidth, CostRow, Cpu, read_cpu
from targets.device.probing import Probed, Task
from targets.remote.probing import ProbeVisit
from toolchain.cli import probing

Slmc = Callable[..., Result]


def probed(machine: object, facts: object, kept: object, *, name: str, quick: bool, **more: object) -> Cpu:
    return dataclasses.replace(
        probe_cpu(), name=name, bandwidths=(Bandwidth("memory", 1, 1 << 24, 7.5),),
        costs=(CostRow("Add", "", 256, 1, 1, 0, 2048, 0.25 if quick else 0.5),),
        sources={"costs": "measured by a test"},
    )  # fmt: skip


def test_probe_writes_a_target(slmc: Slmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "probe", probed)
    file = tmp_path / "here.toml"
    result = slmc("targets", "probe", "-o", file, "--quick")
    assert result.exit_code == 0 and "1 measured costs" in result.stderr
    found = read_cpu(file)
    assert found.name == "here" and found.costs[0].us == 0.25
    shown = slmc("targets", "show", file).stdout
    assert "1 thread reads 7.5 GB/s from memory" in shown and "measured by a test" in shown


def test_probe_replaces_nothing_unasked(tmp_path: Path, fails: Callable[..., None], slmc: Slmc,
                                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(probing, "probe", probed)
    file = tmp_path / "here.toml"
    file.write_text("mine")
    for force in ((), ("--force",)):
        fails(("targets", "probe", "-o", file, *force), 2, "here.toml")
        assert file.read_text() == "mine"
    file.unlink()
    assert slmc("targets", "probe", "-o", file).exit_code == 0
    fails(("targets", "probe", "-o", file), 2, "here.toml", "--force")
    assert slmc("targets", "probe", "-o", file, "--force").exit_code == 0 and read_cpu(file).costs[0].us == 0.5


def test_show_says_where_figures_come_from(slmc: Slmc, document: Callable[..., dict[str, object]]) -> None:
    shown = slmc("targets", "show", "raspberry-pi-zero-2-w").stdout
    assert "clock_ghz: 1.0    (Raspberry Pi Zero 2 W product brief)" in shown
    assert document("targets", "show", "raspberry-pi-4")["cores"] == 4


def test_a_file_with_a_slip_of_the_unit(tmp_path: Path, fails: Callable[..., None], tiny_model: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('name = "m"\narchitecture = "aarch64"\nmodel = "c"\nisa = "neon"\nclock_ghz = 1500\n')
    fails(("targets", "show", file), 2, "clock_ghz is 1500", "the unit is GHz")
    fails(("build", tiny_model, "-o", tmp_path / "out", "--target", file), 2, "clock_ghz is 1500", "the unit is GHz")


def test_a_board_is_probed_and_prices_an_artifact(
    tiny_probe: None, slmc: Slmc, server: Server, tmp_path: Path, artifact: Path, fails: Callable[..., None],
    document: Callable[..., dict[str, object]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Over ssh into an account without torch; the connection breaks once, and --resume goes on."""
    board, run, jobs = tmp_path / "board.toml", ProbeVisit.run, []

    def cut_in_the_third(visit: ProbeVisit, tasks: Sequence[Task]) -> Probed:
        jobs.append(len(tasks))
        if len(jobs) == 3:
            visit._device._connection._kill()
        return run(visit, tasks)

    monkeypatch.setattr(ProbeVisit, "run", cut_in_the_third)
    fails(("targets", "probe", "-o", board, "-q", *server.options()), 5, f"127.0.0.1:{server.port}: ")
    assert not board.exists() and server.left() == []
    kept = (tmp_path / "board.toml.slmc-work" / "probe.jsonl").read_text().splitlines()
    assert len(kept) == jobs[1] > 0, "the first job asked what the machine is"
    resumed = ("targets", "probe", "-o", board, "--resume", *server.options())
    fails((*resumed, "--no-native"), 2, "other inputs", "kernels changed")
    assert slmc(*resumed).exit_code == 0
    cpu = read_cpu(board)
    assert cpu.name == "board" and cpu.kernels is not None and len(cpu.kernels) == 64
    assert cpu.empty_runtime_bytes is not None and cpu.empty_runtime_bytes > 10e6
    assert {row.format for row in cpu.costs} == {"", "int4-g64", "fp32"} and server.left() == []
    assert not (tmp_path / "board.toml.slmc-work").exists()
    assert "measured costs" in str(document("inspect", artifact, "--target", board))
    board.write_text(board.read_text().replace(cpu.kernels, "0" * 64))
    assert (
        "note: " in (said := slmc("inspect", artifact, "--target", board).stdout) and "operators 000000000000" in said
    )


def test_a_board_without_python_is_probed(
    tiny_probe: None, slmc: Slmc, bare_server: Server, tmp_path: Path, artifact: Path, fails: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """By slmc-run alone; the connection breaks once; its costs are known as those of slmc-run."""
    board, run, jobs = tmp_path / "board.toml", ProbeVisit.run, []

    def cut_in_the_third(visit: ProbeVisit, tasks: Sequence[Task]) -> Probed:
        jobs.append(len(tasks))
        if len(jobs) == 3:
            visit._device._connection._kill()
        return run(visit, tasks)

    monkeypatch.setattr(ProbeVisit, "run", cut_in_the_third)
    command = ("targets", "probe", "-o", board, "--runtime", "slmc-run", *bare_server.options())
    fails((*command, "-q"), 5, f"127.0.0.1:{bare_server.port}: ")
    assert bare_server.left() == []
    done = slmc(*command, "--resume")
    assert done.exit_code == 0, done.stderr
    assert "runtime: slmc-run" in done.stdout and "a call with 4 states takes" in done.stdout
    cpu = read_cpu(board)
    assert (cpu.runtime, cpu.kernels and len(cpu.kernels)) == ("slmc-run", 64) and bare_server.left() == []
    assert cpu.empty_runtime_bytes is not None and cpu.empty_runtime_bytes < 8e6
    assert {row.format for row in cpu.costs} == {"", "int4-g64", "fp32"}
    assert "measured costs of slmc-run" in slmc("inspect", artifact, "--target", board).stdout


def test_whose_operators_are_probed(tmp_path: Path, fails: Callable[..., None]) -> None:
    command = ("targets", "probe", "-o", tmp_path / "board.toml", "--runtime", "slmc-run")
    fails((*command, "--no-native"), 2, "--runtime measures slmc-run", "leave --native and --no-native away")
    (tmp_path / "text").write_text("no program")
    fails((*command[:-1], tmp_path / "text"), 2, "no program for", "make runtime-cross")


def test_a_probe_needs_a_file(fails: Callable[..., None]) -> None:
    fails(("targets", "probe", "--on", "local"), 2, "-o is missing", "-o board.toml")
