"""The command that runs Python on an emulated processor, and what is said where it cannot."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from exporters.artifact.errors import NotAvailable, SlmcError
from targets.remote import emulation, sysroot
from targets.remote.emulation import CPUS, emulated_python, write_cpus

PREPARED = Path(__file__).parents[3] / "build" / "aarch64" / "sysroot"


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A qemu that only says what it was asked for, one argument a line; the only one that is found."""
    program = tmp_path / "bin" / "qemu-aarch64"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


def test_every_processor_has_a_command(qemu, tmp_path):
    root = tmp_path / "a root"
    write_cpus(root)
    for cpu, (part, features) in CPUS.items():
        view = root / "cpus" / cpu
        asked = subprocess.run([*emulated_python(root, cpu), "-c", "a b"], capture_output=True, text=True, check=True)
        assert asked.stdout.splitlines() == [
            *("-cpu", cpu, "-L", str(view), "-0", str(view / "python")),
            *("-E", f"PYTHONHOME={view}/usr", f"{view}/usr/bin/python3.11", "-c", "a b"),
        ]
        cpuinfo = (view / "proc" / "cpuinfo").read_text()
        assert f"CPU part\t: {part}\n" in cpuinfo
        assert ("asimddp" in cpuinfo) == ("asimddp" in features) == (cpu in ("cortex-a76", "neoverse-n1"))
        assert (view / "usr").readlink() == Path("../../usr")


def test_an_unknown_processor(qemu, tmp_path):
    with pytest.raises(SlmcError, match=r"'m68k' is not known to the emulation; allowed are cortex-a53, cortex-a72"):
        emulated_python(tmp_path, "m68k")


def test_a_folder_that_was_not_prepared(qemu, tmp_path):
    with pytest.raises(NotAvailable, match=r"no aarch64 Python there; prepare .*targets\.remote\.sysroot"):
        emulated_python(tmp_path)


def test_no_qemu(tmp_path, monkeypatch):
    monkeypatch.setattr(emulation.shutil, "which", lambda name: None)
    with pytest.raises(NotAvailable, match=r"qemu-aarch64 is not installed.*qemu-user"):
        emulated_python(tmp_path)


def test_a_folder_is_not_prepared_twice(tmp_path, capsys):
    assert sysroot.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}: exists already; remove it to prepare it anew\n"
    assert sysroot.main([]) == 2


def test_a_download_that_fails_leaves_nothing(tmp_path, monkeypatch, capsys):
    """An apt-get that finds no network; the other tools are there."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool, says in {"apt-get": "echo E: no network >&2; exit 100", "dpkg-deb": "exit 0"}.items():
        (tools / tool).write_text(f"#!/bin/sh\n{says}\n")
        (tools / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(sysroot, "_KEYRING", tools / "apt-get")
    assert sysroot.main([str(tmp_path / "made" / "root")]) == 5
    assert "'apt-get' failed: E: no network" in capsys.readouterr().err
    assert list((tmp_path / "made").iterdir()) == []


def test_python_and_its_children_run_emulated():
    """For real, where the folder was prepared."""
    try:
        python = emulated_python(PREPARED)
    except NotAvailable as missing:
        pytest.skip(str(missing))
    code = "import os, platform, subprocess, sys; print(platform.machine(), flush=True)\n"
    code += "if len(sys.argv) == 1: subprocess.run([sys.executable, '-c', sys.orig_argv[-1], 'child'], check=True)"
    said = subprocess.run([*python, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["aarch64", "aarch64"]
