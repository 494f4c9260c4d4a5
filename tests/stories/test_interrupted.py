"""A build that is killed, interrupted, crowded out or cut short: never half an artifact, and nothing paid for twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exporters.artifact.manifest import read_manifest
from targets.device.verify import open_artifact

COMMAND = (sys.executable, "-c", "from toolchain.cli.main import main; main(prog_name='slmc')")


def wait_for(happened: Callable[[], bool], running: Any, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not happened():
        assert running.process.is_alive(), running.err.read_text()
        assert time.monotonic() < end, "it never came so far"
        time.sleep(0.005)


def evaluations(work: Path) -> int:
    journal = work / "journal.jsonl"
    return len(journal.read_text().splitlines()) if journal.is_file() else 0


def moment(name: str, work: Path) -> Callable[[], bool]:
    """Whether a build has come to a moment, as its work folder shows it."""
    staging = work / "artifact"
    return {
        "calibration": (work / "inputs.json").is_file,
        "search": lambda: evaluations(work) >= 4,
        "export": staging.is_dir,
        "writing": lambda: (staging / "model.onnx.data").is_file(),
        "measurement": lambda: (staging / "run.py").is_file(),
    }[name]


def test_killed_again_and_again_it_ends_with_the_same_bytes(
    tiny_model: Path, artifact: Path, start: Callable[..., Any], slmc: Any, limits: tuple[str, ...], tmp_path: Path
) -> None:
    out, work = tmp_path / "out", tmp_path / "out.slmc-work"
    command = ("build", tiny_model, "-o", out, *limits)
    paid = 0
    for name in ("calibration", "search", "export", "measurement"):
        running = start(*command, *(("--resume",) if work.exists() else ()))
        wait_for(moment(name, work), running)
        os.kill(running.process.pid, signal.SIGKILL)
        assert running.code() == -signal.SIGKILL
        assert not out.exists(), f"killed at {name}, something stands at the output"
        assert evaluations(work) >= paid, "what was paid for was thrown away"
        paid = evaluations(work)
    result = slmc(*command, "--resume")
    assert result.exit_code == 0, result.stderr
    assert "\ncalibration: " not in f"\n{result.stderr}", "calibrated again"
    for name in ("model.onnx.data", "model.onnx", "plan.json"):
        assert (out / name).read_bytes() == (artifact / name).read_bytes(), name
    assert read_manifest(out).recipe == read_manifest(artifact).recipe
    open_artifact(out)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_control_c_keeps_the_best_plan_and_says_how_to_go_on(
    tiny_model: Path, start: Callable[..., Any], fails: Callable[..., None], limits: tuple[str, ...], tmp_path: Path
) -> None:
    """Also: a second build at the same output is refused while the first is at work, and so are changed options."""
    out, work = tmp_path / "out", tmp_path / "out.slmc-work"
    running = start("build", tiny_model, "-o", out, *limits)
    wait_for(moment("search", work), running)
    os.kill(running.process.pid, signal.SIGSTOP)  # else it may end while the second one starts
    fails(("build", tiny_model, "-o", out, *limits), 2, work, "another build", "wait")
    os.kill(running.process.pid, signal.SIGINT)
    os.kill(running.process.pid, signal.SIGCONT)
    assert running.code() == 130
    said = running.err.read_text().splitlines()[-1]
    assert said.startswith("interrupted: ") and "--resume" in said and "Traceback" not in running.err.read_text()
    best = work / "best-plan.json"
    assert str(best) in said and len(json.loads(best.read_text())["recipe"]) == 16
    assert not out.exists() and running.out.read_text() == ""
    fails(("build", tiny_model, "-o", out, *limits, "--seed", "9", "--max-drop", "6%", "--resume"), 2, "max_drop, seed")
    assert best.is_file(), "a refused --resume has thrown the work away"


AS_IT_LOADS = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == sys.argv[2]:
            os.kill(os.getpid(), int(sys.argv[1]))
sys.meta_path.insert(0, Finder())
from toolchain.cli.main import main
main(["inspect", "nothing"], prog_name="slmc")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("package", ["toolchain.cli.looking", "torch"])
def test_a_signal_while_it_still_starts(number: signal.Signals, package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AS_IT_LOADS, str(int(number)), package], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_reader_that_has_seen_enough(tiny_model: Path) -> None:
    """slmc inspect ... | head -1"""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, "inspect", tiny_model], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 160 KiB; the calibration alone takes more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", folder], capture_output=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mount.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk(tiny_model: Path, fails: Callable[..., None], limits: tuple[str, ...], small_disk: Path) -> None:
    out = small_disk / "out"
    fails(("build", tiny_model, "-o", out, *limits, "-q"), 5, "out.slmc-work", "no space left", "--resume")
    assert not out.exists()


def test_a_disk_that_fills_up_in_the_middle(
    tiny_model: Path,
    fails: Callable[..., None],
    limits: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no file system can be mounted: the system's refusal, from the writing of the graph."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("toolchain.delivery.deliver.export_graph", refuse)
    out = tmp_path / "out"
    fails(("build", tiny_model, "-o", out, *limits, "-q"), 5, "out.slmc-work", "no space left", "--resume")
    assert not out.exists() and evaluations(tmp_path / "out.slmc-work") > 4


def test_a_fault_is_one_line_too(
    tiny_model: Path, fails: Callable[..., None], slmc: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """-v raises it, for the traceback."""

    def stumble(*_: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("toolchain.cli.opening.load_model", stumble)
    fails(("inspect", tiny_model), 1, "ZeroDivisionError: two lines", "-v")
    with pytest.raises(ZeroDivisionError):
        slmc("inspect", tiny_model, "-v")
    monkeypatch.setattr("toolchain.cli.opening.load_model", lambda *_: (_ for _ in ()).throw(MemoryError()))
    fails(("inspect", tiny_model), 5, "memory ran out")


def test_an_artifact_is_not_made_without_the_operator_library(
    tiny_model: Path, fails: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exporters.artifact.errors import NotAvailable

    def missing() -> Path:
        raise NotAvailable("libslmc_ops.so is not installed; install with 'pip install .'")

    monkeypatch.setattr("toolchain.cli.building.library_path", missing)
    fails(("build", tiny_model, "-o", tmp_path / "out"), 5, "libslmc_ops.so", "pip install")
    assert list(tmp_path.iterdir()) == []
