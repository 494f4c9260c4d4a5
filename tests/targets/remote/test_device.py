"""A visit to a device, with this machine as the device: what comes back, what is refused, and that nothing stays."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from exporters.artifact.errors import ConstraintsNotMet, NotAvailable, SlmcError
from exporters.artifact.manifest import read_manifest
from targets.device.evaluation import EvaluationRequest, evaluate
from targets.device.measurement import MeasureRequest
from targets.device.native import platform_name
from targets.remote import agents
from targets.remote import device as remote
from targets.remote.device import Device, DeviceLimits, LimitFound, Ran
from targets.remote.transport import Local

ROOT = Path(__file__).parents[3]
SMALL = MeasureRequest(prompt_tokens=2, generate_tokens=2, repetitions=1, native=False, bandwidth=False)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder for temporary files there."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


def shell(command: str) -> Local:
    """A 'Python' that is a line of shell."""
    return Local(("/bin/sh", "-c", command, "sh"))


def test_what_comes_back(packed, place):
    request = EvaluationRequest(packed.tokens, 3, native=False)
    manifest = read_manifest(packed.artifact)
    with Device(Local(), place=str(place)) as device:
        assert device.platform == platform_name() and device.facts.free_bytes > 0
        device.send(packed.artifact, manifest, native=False)
        (folder,) = place.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700, "other users there must not look on"
        there, limit = device.evaluate(request)
        measurement, _ = device.measure(SMALL, DeviceLimits(None, 1))
    assert there == evaluate(packed.artifact, "model.onnx", packed.io, request) and limit is None
    assert len(measurement.decode_wall_ms) == 2 and measurement.read_bandwidth_gbs is None
    assert list(place.iterdir()) == []


def test_too_little_memory(packed, place):
    with Device(Local(), place=str(place)) as device:
        device.send(packed.artifact, read_manifest(packed.artifact), native=False)
        with pytest.raises(ConstraintsNotMet, match=r"local: it does not run in 20\.0 MB.*it was stopped \(") as error:
            device.measure(SMALL, DeviceLimits(20_000_000))
        assert error.value.exit_code == 4
        _, limit = device.measure(SMALL, DeviceLimits(10**9))
    assert isinstance(limit, LimitFound) and not limit.killed and 10**7 < (limit.peak_bytes or 0) < 10**9


def test_errors_there_are_errors_here(packed, place):
    with Device(Local(), place=str(place)) as device:
        device.send(packed.artifact, read_manifest(packed.artifact), native=False)
        with pytest.raises(SlmcError, match="local: token 7 is not in the vocabulary"):
            device.evaluate(EvaluationRequest((1, 7), native=False))
        with pytest.raises(NotAvailable, match=r"local: the measured process did not end within 0\.2 s"):
            device.measure(dataclasses.replace(SMALL, generate_tokens=10**9, timeout_s=0.2))
        assert device.evaluate(EvaluationRequest((1, 2), native=False))[0].best, "the visit goes on after an error"


def test_files_that_arrive_altered(packed, place):
    manifest = read_manifest(packed.artifact)
    data = bytearray((packed.artifact / "model.onnx.data").read_bytes())
    data[3] ^= 1
    (packed.artifact / "model.onnx.data").write_bytes(data)
    with Device(Local(), place=str(place)) as device, pytest.raises(SlmcError, match=r"model\.onnx\.data arrived with"):
        device.send(packed.artifact, manifest, native=False)
    assert list(place.iterdir()) == []


def test_the_disk_fills_up_while_files_arrive(packed, place):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=False).returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        with Device(Local(), place=str(place)) as device:
            device.facts = dataclasses.replace(device.facts, free_bytes=10**9)  # it was free a moment ago
            with pytest.raises(NotAvailable, match=r"local: .*No space left on device"):
                device.send(packed.artifact, read_manifest(packed.artifact), native=False)
        assert list(place.iterdir()) == []
        with (
            pytest.raises(NotAvailable, match=r"B free, .* MB are needed"),
            Device(Local(), place=str(place)) as device,
        ):
            device.send(packed.artifact, read_manifest(packed.artifact), native=False)
    finally:
        subprocess.run(["umount", place], check=True)


REFUSED = {
    "no Python": (Local(("/opt/no/python3",)), "no /opt/no/python3 there"),
    "no packages": (
        Local((sys.executable, "-I", "-S")),
        r".* lacks numpy, onnxruntime, tokenizers; run there: .*pip install",
    ),
    "an old Python": (shell("echo 'slmc: python 3.7' >&2; exit 1"), r"Python 3\.7 is too old, 3\.11 is needed"),
    "chatter": (shell("echo Welcome; cat > /dev/null"), "'Welcome' came instead of an answer; login scripts"),
    "killed": (
        shell("kill -9 $$"),
        "our process there was killed by SIGKILL; the system does this when memory runs out",
    ),
    "broken": (shell("echo 'no such thing' >&2; exit 3"), "our process there ended with exit code 3: no such thing"),
    "silent": (shell("sleep 60"), r"it did not answer within 0\.5 s"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, place):
    transport, message = REFUSED[case]
    with (
        pytest.raises(NotAvailable, match=f"local: {message}"),
        Device(transport, place=str(place), answer_s=0.5 if case == "silent" else 60),
    ):
        pytest.fail("it was let in")


def test_no_place(tmp_path):
    with pytest.raises(NotAvailable, match=r"nowhere is no folder.*--remote-dir"), Device(Local(), place="/nowhere"):
        pytest.fail("it was let in")


def test_old_packages(place, monkeypatch):
    monkeypatch.setattr(agents, "PACKAGES", {"numpy": ">=99", "onnxruntime": ">=1.0"})
    with (
        pytest.raises(NotAvailable, match=r"has numpy [\d.]+, which is too old; run there: .*'numpy>=99'"),
        Device(Local(), place=str(place)),
    ):
        pytest.fail("it was let in")


def test_versions():
    assert agents.numbers("1.24.0rc1") == (1, 24) and agents.numbers("2") == (2,) and agents.numbers("x") == ()
    assert agents.numbers("1.9") < agents.numbers("1.24") < agents.numbers("1.24.1")


def test_packages_are_those_of_the_project():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert sorted(wanted) == sorted(name + least for name, least in agents.PACKAGES.items())


def test_what_the_measured_process_may_say():
    def said(**values: object) -> str:
        ran = Ran(0, "", "", False, None)
        with pytest.raises(SlmcError) as error:
            remote._found("board", dataclasses.replace(ran, **values), "measurement", 60)
        return str(error.value)

    assert "killed by SIGSEGV (it last said: at layer 7)" in said(returncode=-11, stderr="at layer 7\n")
    assert "failed with exit code 1: ModuleNotFoundError" in said(returncode=1, stderr="ModuleNotFoundError\n")
    assert "failed with exit code 0" in said(stdout="{}")
    assert said(stdout='{"error": {"kind": "NotAvailable", "text": "no ORT"}}') == "board: no ORT"
    assert remote._found("board", Ran(0, '{"measurement": 1}', "", False, None), "measurement", 1) == 1


def test_commands_are_quoted():
    """The whole command is one word for ssh, and one line for the shell there."""
    seen = []

    class Spy(Local):
        def argv(self, command: str) -> list[str]:
            seen.append(command)
            return ["/bin/sh", "-c", "exit 7"]

    with pytest.raises(NotAvailable, match="exit code 7"), Device(Spy(("my python",))):
        pytest.fail("it was let in")
    assert "\n" not in seen[0] and shlex.split(seen[0])[0] == "my python"
