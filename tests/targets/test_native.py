"""Which operator library serves an artifact: its own, the installed one, or none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from exporters.errors import NotAvailable
from targets import native
from targets.cpu import host_isa
from targets.native import LIBRARY_NAME, isa_name, platform_name, serving_library

ENTRY = "void *RegisterCustomOps(void *options, void *api) { return 0; }\n"
ISA = 'const char *slmc_isa_name(void) { return "testisa"; }\n'


@pytest.fixture
def nothing_installed(monkeypatch):
    def missing() -> Path:
        raise NotAvailable("not installed")

    monkeypatch.setattr(native, "library_path", missing)


def compiled(path: Path, source: str) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source, text=True, check=True)
    return path


def place(artifact: Path) -> Path:
    return artifact / "native" / platform_name() / LIBRARY_NAME


@pytest.mark.parametrize(
    ("machine", "expected"),
    [("x86_64", "linux-x86_64"), ("AMD64", "linux-x86_64"), ("arm64", "linux-aarch64"), ("riscv64", "linux-riscv64")],
)
def test_platform_name(monkeypatch, machine, expected):
    monkeypatch.setattr(native.platform, "system", lambda: "Linux")
    monkeypatch.setattr(native.platform, "machine", lambda: machine)
    assert platform_name() == expected


def test_the_artifacts_own_comes_first(tmp_path, monkeypatch):
    own, installed = compiled(place(tmp_path), ENTRY), compiled(tmp_path / "installed.so", ENTRY)
    monkeypatch.setattr(native, "library_path", lambda: installed)
    assert serving_library(tmp_path) == own.resolve()


def test_a_damaged_one_gives_way_to_the_installed(tmp_path, monkeypatch):
    place(tmp_path).parent.mkdir(parents=True)
    place(tmp_path).write_bytes(b"for another machine")
    installed = compiled(tmp_path / "installed.so", ENTRY)
    monkeypatch.setattr(native, "library_path", lambda: installed)
    assert serving_library(tmp_path) == installed.resolve()


def test_nothing_there(tmp_path, nothing_installed):
    assert serving_library(tmp_path) is None


def test_a_library_without_operators_does_not_serve(tmp_path, nothing_installed):
    compiled(place(tmp_path), ISA)
    assert serving_library(tmp_path) is None


def test_isa(tmp_path):
    assert isa_name(compiled(tmp_path / "says.so", ENTRY + ISA)) == "testisa"
    assert isa_name(compiled(tmp_path / "silent.so", ENTRY)) == host_isa()
    assert isa_name(None) == host_isa()
    assert isa_name(tmp_path / "missing.so") == host_isa()
