"""Requests to end, at every phase and from every side: work is kept, children end too, and one line says it."""

from __future__ import annotations

import ast
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporters.artifact.manifest import read_manifest
from targets.device.verify import open_artifact

ROOT = Path(__file__).parents[2]


def wait_for(happened: Callable[[], object], running: Any, timeout_s: float = 90.0) -> Any:
    end = time.monotonic() + timeout_s
    while not (found := happened()):
        assert running.process.is_alive(), running.err.read_text()
        assert time.monotonic() < end, "it never came so far"
        time.sleep(0.005)
    return found


def measuring(parent: int) -> list[int]:
    """Processes that measure for a process."""
    found = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"targets.device.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def measures_on(child: int) -> bool:
    """Whether a process still runs a second later; one that has ended may wait for its parent to look at it."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return False
        if state in "ZX":
            return False
        time.sleep(0.01)
    return True


def phases(work: Path, process: int) -> dict[str, Callable[[], object]]:
    journal, staging = work / "journal.jsonl", work / "artifact"
    return {
        "calibration": (work / "inputs.json").is_file,
        "search": lambda: journal.is_file() and len(journal.read_text().splitlines()) >= 4,
        "export": staging.is_dir,
        "writing": (staging / "model.onnx.data").is_file,
        "measurement": lambda: measuring(process),
    }


@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)])
def test_at_every_phase_work_is_kept(
    tiny_model: Path, artifact: Path, start: Callable[..., Any], slmc: Any, limits: tuple[str, ...], tmp_path: Path,
    signals: tuple[signal.Signals, ...],
) -> None:  # fmt: skip
    out, work = tmp_path / "out", tmp_path / "out.slmc-work"
    command = ("build", tiny_model, "-o", out, *limits)
    for number, name in enumerate(("calibration", "search", "export", "writing", "measurement")):
        running = start(*command, *(("--resume",) if work.exists() else ()))
        process = running.process.pid
        wait_for(phases(work, process)[name], running)
        children = measuring(process)
        os.kill(process, signals[number % 2])
        assert running.code() == 130, (name, running.err.read_text())
        said = running.err.read_text()
        assert said.splitlines()[-1].startswith("interrupted: ") and "--resume" in said.splitlines()[-1], (name, said)
        assert "Traceback" not in said and not out.exists() and running.out.read_text() == ""
        assert not any(map(measures_on, children)), "a child measures on"
    result = slmc(*command, "--resume")
    assert result.exit_code == 0, result.stderr
    for name in ("model.onnx.data", "model.onnx", "plan.json"):
        assert (out / name).read_bytes() == (artifact / name).read_bytes(), name
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("command", [("bench", "-r", "200"), ("validate",)])
def test_commands_that_measure(artifact: Path, start: Callable[..., Any], command: tuple[str, ...]) -> None:
    running = start(command[0], artifact, *command[1:])
    process = running.process.pid
    children = wait_for(lambda: measuring(process), running)
    os.kill(process, signal.SIGTERM)
    assert running.code() == 130
    assert running.err.read_text().splitlines()[-1] == "interrupted" and running.out.read_text() == ""
    assert not any(map(measures_on, children))


def test_the_measuring_child_is_killed(
    tiny_model: Path, start: Callable[..., Any], slmc: Any, limits: tuple[str, ...], tmp_path: Path
) -> None:
    """As the system does when memory runs out: the build says so, and goes on where it was."""
    out, work = tmp_path / "out", tmp_path / "out.slmc-work"
    running = start("build", tiny_model, "-o", out, *limits)
    process = running.process.pid
    for child in wait_for(lambda: measuring(process), running):
        os.kill(child, signal.SIGKILL)
    assert running.code() == 5
    said = running.err.read_text().splitlines()[-1]
    assert said.startswith("error: ") and "SIGKILL" in said and not out.exists()
    paid = len((work / "journal.jsonl").read_text().splitlines())
    result = slmc("build", tiny_model, "-o", out, *limits, "--resume")
    assert result.exit_code == 0 and paid >= 4, result.stderr
    open_artifact(out)


def test_the_model_is_deleted_during_the_build(
    tiny_model: Path, artifact: Path, start: Callable[..., Any], slmc: Any, limits: tuple[str, ...], tmp_path: Path
) -> None:
    """It was read at the start; nothing of it is needed later."""
    model, out, work = tmp_path / "model", tmp_path / "out", tmp_path / "out.slmc-work"
    shutil.copytree(tiny_model, model)
    running = start("build", model, "-o", out, *limits)
    wait_for(phases(work, running.process.pid)["search"], running)
    shutil.rmtree(model)
    assert running.code() == 0, running.err.read_text()
    open_artifact(out)
    for name in ("model.onnx.data", "tokenizer.json"):
        assert (out / name).read_bytes() == (artifact / name).read_bytes(), name


def test_an_artifact_is_validated_while_it_is_built_again(
    tiny_model: Path, artifact: Path, start: Callable[..., Any], slmc: Any, limits: tuple[str, ...], tmp_path: Path
) -> None:
    """Either of the two whole ones is found valid, or one line says that it has changed."""
    out = tmp_path / "out"
    shutil.copytree(artifact, out)
    running = start("build", tiny_model, "-o", out, *limits, "--formats", "int8", "--max-memory", "60%", "--force")
    codes = []
    while running.process.is_alive():
        result = slmc("validate", out, "--tokens", "100", "-q")
        codes.append(result.exit_code)
        assert result.exit_code in (0, 2) and len(result.stderr.splitlines()) <= 1, result.stderr
        assert result.exit_code == 0 or result.stderr.startswith("error: "), result.stderr
    assert running.code() == 0, running.err.read_text()
    assert 0 in codes and slmc("validate", out, "--tokens", "100", "-q").exit_code == 0
    assert {entry.format for entry in read_manifest(out).recipe.values()} != {"int8-none"}


def test_the_clock_on_the_wall_jumps(
    tiny_model: Path, artifact: Path, slmc: Any, limits: tuple[str, ...], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Hours forth and back: a limit of time is kept by a clock that only goes on."""
    jumps = random.Random(1)
    monkeypatch.setattr(time, "time", lambda: jumps.uniform(0, 4e9))
    plan = tmp_path / "plan.json"
    result = slmc("search", tiny_model, "-o", plan, *limits, "--max-time", "30m")
    assert result.exit_code == 0, result.stderr
    found, expected = (json.loads(path.read_text())["recipe"] for path in (plan, artifact / "plan.json"))
    assert found == expected
    assert slmc("bench", artifact, "-p", "4", "-n", "4", "-r", "1").exit_code == 0


def test_no_duration_is_taken_from_the_clock_on_the_wall() -> None:
    """time.time() and its kin are nowhere; datetime.now() only stamps what is written."""
    wall = {"time", "time_ns", "localtime", "gmtime", "utcnow", "today"}
    found = set()
    for package in ("exporters", "targets", "toolchain"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Attribute(value=ast.Name(id="time" | "datetime" | "date"), attr=name) if name in wall:
                        found.add(f"{path.relative_to(ROOT)}: {name}")
                    case ast.ImportFrom(module="time", names=names) if {n.name for n in names} & wall:
                        found.add(f"{path.relative_to(ROOT)}: import")
    assert found == set()
