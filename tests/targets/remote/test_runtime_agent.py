"""A visit with slmc-run alone, to a machine with a shell and a few tools: what comes back, and that nothing stays."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from exporters.artifact.errors import ConstraintsNotMet, NotAvailable, SlmcError
from exporters.artifact.manifest import read_manifest
from targets.device.evaluation import EvaluationRequest, evaluate
from targets.device.measurement import MeasureRequest
from targets.device.native import platform_name
from targets.remote import agents
from targets.remote.agents import RuntimeAgent
from targets.remote.device import Device, DeviceLimits
from targets.remote.transport import EMULATORS, Emulated, Local
from targets.runtime.program import installed_program

ROOT = Path(__file__).parents[3]
SMALL = MeasureRequest(prompt_tokens=2, generate_tokens=3, repetitions=2, tokens=(1, 2), bandwidth=False)
TOOLS = ("mkdir", "dd", "chmod", "rm", "uname")


class Bare(Local):
    """This machine without anything but a shell and TOOLS."""

    folder = ""

    def argv(self, command: str) -> list[str]:
        return ["/usr/bin/env", "-i", f"PATH={self.folder}", "/bin/sh", "-c", command]


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or tool)
    transport = Bare()
    object.__setattr__(transport, "folder", str(tmp_path / "bin"))
    return transport


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder for temporary files there."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture
def agent() -> RuntimeAgent:
    try:
        program = installed_program()
    except NotAvailable as error:
        pytest.skip(str(error))
    return RuntimeAgent(lambda platform: program)


def left(place: Path) -> list[str]:
    """What is still there once a visit that is ending has had the time to end."""
    for _ in range(100):
        if not (found := [str(path) for path in place.iterdir()]):
            break
        time.sleep(0.05)
    return found


def test_what_comes_back(runnable, place, agent, bare):
    request = EvaluationRequest(runnable.tokens, 3)
    with Device(bare, place=str(place), agent=agent) as device:
        assert device.platform == platform_name() and device.facts.free_bytes > 0 and device.facts.packages == {}
        device.send(runnable.artifact, read_manifest(runnable.artifact))
        (folder,) = place.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700, "other users there must not look on"
        there, limit = device.evaluate(request)
        measurement, _ = device.measure(SMALL, DeviceLimits(None, 1))
    here = evaluate(runnable.artifact, "model.onnx", runnable.io, dataclasses.replace(request, native=False))
    assert there.losses == pytest.approx(here.losses, rel=1e-6) and limit is None
    same = (here.best, here.token_by_token_top1, here.context, here.accuracy)
    assert (there.best, there.token_by_token_top1, there.context, there.accuracy) == same
    assert (there.runtime, there.native_library, measurement.runtime) == ("slmc-run", None, "slmc-run")
    assert (len(measurement.prompt_wall_ms), len(measurement.decode_wall_ms)) == (2, 6)
    assert measurement.read_bandwidth_gbs is None and 0 < measurement.baseline.rss_bytes < 8e6
    assert measurement.ended.peak_bytes >= measurement.loaded.rss_bytes and min(measurement.reference_cpu_ms) > 0
    assert left(place) == []


def test_sentences_of_a_classifier(packed_whole, place, agent, bare):
    """Losses of the labels and best classes, as ONNX Runtime has them."""
    request = EvaluationRequest((2, 0, 1, 1, 2), ends=(2, 5), labels=(1, 0))
    here = evaluate(packed_whole.artifact, "model.onnx", packed_whole.io, dataclasses.replace(request, native=False))
    with Device(bare, place=str(place), agent=agent) as device:
        device.send(packed_whole.artifact, read_manifest(packed_whole.artifact))
        there, _ = device.evaluate(request)
    assert there.losses == pytest.approx(here.losses, rel=1e-6)
    assert (there.best, there.accuracy, there.token_by_token_top1) == (here.best, here.accuracy, None)


def test_limits_and_errors_there(runnable, place, agent, bare):
    with Device(bare, place=str(place), agent=agent) as device:
        device.send(runnable.artifact, read_manifest(runnable.artifact))
        with pytest.raises(SlmcError, match=r"local: .*7.*not"):
            device.evaluate(EvaluationRequest((1, 7)))
        with pytest.raises(ConstraintsNotMet, match=r"local: it does not run in 100 kB.*it was stopped \(") as error:
            device.measure(dataclasses.replace(SMALL, repetitions=200), DeviceLimits(100_000))
        assert error.value.exit_code == 4
        with pytest.raises(NotAvailable, match=r"local: the measured process did not end within 0\.2 s"):
            device.measure(dataclasses.replace(SMALL, generate_tokens=10**7, timeout_s=0.2))
        _, limit = device.measure(SMALL, DeviceLimits(10**9))
        assert limit is not None and not limit.killed and 10**5 < (limit.peak_bytes or 0) < 10**8
    assert left(place) == []


def test_files_that_arrive_altered(runnable, place, agent, bare):
    manifest = read_manifest(runnable.artifact)
    data = bytearray((runnable.artifact / "model.onnx.data").read_bytes())
    data[3] ^= 1
    (runnable.artifact / "model.onnx.data").write_bytes(data)
    with (
        pytest.raises(SlmcError, match=r"model\.onnx\.data arrived with"),
        Device(bare, place=str(place), agent=agent) as device,
    ):
        device.send(runnable.artifact, manifest)
    assert left(place) == []


@pytest.mark.parametrize("who", ["the program", "the shell", "this side"])
def test_nothing_is_left_by_who_is_killed(runnable, place, agent, bare, who):
    device = Device(bare, place=str(place), agent=agent)
    device.__enter__()
    device.send(runnable.artifact, read_manifest(runnable.artifact))
    shell = device._connection._process.pid
    (program,) = (
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdecimal() and str(place).encode() in _command(path) and b"--agent" in _command(path).split(b"\0")
    )
    if who == "this side":
        device._connection._process.stdin.close()
    else:
        os.kill(program if who == "the program" else shell, signal.SIGKILL)
    device.__exit__(None, None, None)
    assert left(place) == []


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_refused(agent, bare, tmp_path):
    with (
        pytest.raises(NotAvailable, match=r"local: mkdir: .*nowhere.*--remote-dir"),
        Device(bare, place="/nowhere", agent=agent),
    ):
        pytest.fail("it was let in")
    script = tmp_path / "no-program"
    script.write_bytes(b"\x7fELF of another machine")
    (tmp_path / "there").mkdir()
    with (
        pytest.raises(NotAvailable, match="local: slmc-run does not start there"),
        Device(bare, place=str(tmp_path / "there"), agent=RuntimeAgent(lambda platform: script)),
    ):
        pytest.fail("it was let in")
    assert left(tmp_path / "there") == []


def test_a_folder_that_is_there_already_stays(agent, bare, place, monkeypatch):
    monkeypatch.setattr(agents.uuid, "uuid4", lambda: SimpleNamespace(hex="taken"))
    (place / "slmc-taken").mkdir()
    (place / "slmc-taken" / "text").write_text("somebody's")
    with pytest.raises(NotAvailable, match=r"local: mkdir: .*slmc-taken"), Device(bare, place=str(place), agent=agent):
        pytest.fail("it was let in")
    assert (place / "slmc-taken" / "text").read_text() == "somebody's"


def test_a_disk_that_fills_up(agent, bare, place):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=False).returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        with (
            pytest.raises(NotAvailable, match=r"local: .*No space left on device.*--remote-dir"),
            Device(bare, place=str(place), agent=agent),
        ):
            pytest.fail("it was let in")
        assert left(place) == []
    finally:
        subprocess.run(["umount", shlex.quote(str(place))], check=True)


@pytest.mark.parametrize("name", EMULATORS)
def test_another_architecture_under_emulation(runnable, place, name):
    """What 'make runtime-cross' compiled reads the same; nothing there but the emulator."""
    program = ROOT / "build" / "native" / EMULATORS[name] / "slmc-run"
    if not program.is_file() or shutil.which(name) is None:
        pytest.skip(f"no {program} ('make runtime-cross') or no {name} (Debian: qemu-user)")
    request = EvaluationRequest(runnable.tokens, 3)
    with Device(
        Emulated((), name), place=str(place), agent=RuntimeAgent({EMULATORS[name]: program}.__getitem__)
    ) as device:
        assert device.platform == EMULATORS[name] and not device.transport.speed_counts
        device.send(runnable.artifact, read_manifest(runnable.artifact))
        there, _ = device.evaluate(request)
    here = evaluate(runnable.artifact, "model.onnx", runnable.io, dataclasses.replace(request, native=False))
    assert there.losses == pytest.approx(here.losses, rel=1e-6) and there.best == here.best
    assert left(place) == []


def test_only_a_folder_of_a_visit_is_removed(tmp_path: Path) -> None:
    """Somebody who tries the option by hand loses nothing."""
    try:
        program = installed_program()
    except NotAvailable as error:
        pytest.skip(str(error))
    (tmp_path / "letter").write_text("dear")
    for folder in (tmp_path, tmp_path / "slmc-notes"):
        folder.mkdir(exist_ok=True)
        said = subprocess.run([program, "--agent", folder], input="", capture_output=True, text=True, check=False)
        assert said.returncode != 0 and len(said.stderr.splitlines()) == 1 and str(folder) in said.stderr
    assert (tmp_path / "letter").read_text() == "dear" and (tmp_path / "slmc-notes").is_dir()
