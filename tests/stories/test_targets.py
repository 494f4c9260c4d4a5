"""Targets as a user meets them: a probed file, what show says of one, and what stands in the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from targets.cpus.catalog import probe_cpu
from targets.cpus.spec import Bandwidth, CostRow, Cpu, read_cpu
from toolchain.cli import targeting

Slmc = Callable[..., Result]


def probed(*, quick: bool, progress: object) -> Cpu:
    return dataclasses.replace(
        probe_cpu(), bandwidths=(Bandwidth("memory", 1, 1 << 24, 7.5),),
        costs=(CostRow("Add", "", 256, 1, 1, 0, 2048, 0.25 if quick else 0.5),),
        sources={"costs": "measured by a test"},
    )  # fmt: skip


def test_probe_writes_a_target(slmc: Slmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targeting, "probe", probed)
    file = tmp_path / "here.toml"
    result = slmc("targets", "probe", "-o", file, "--quick")
    assert result.exit_code == 0 and "1 measured costs" in result.stderr
    found = read_cpu(file)
    assert found.name == "here" and found.costs[0].us == 0.25
    shown = slmc("targets", "show", file).stdout
    assert "1 thread reads 7.5 GB/s from memory" in shown and "measured by a test" in shown


def test_probe_replaces_nothing_unasked(tmp_path: Path, fails: Callable[..., None], slmc: Slmc,
                                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(targeting, "probe", probed)
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
