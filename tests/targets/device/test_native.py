"""Which operator library serves an artifact: its own, the installed one, or none."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from exporters.artifact.errors import NotAvailable
from exporters.artifact.manifest import Bytes, Io, Manifest, Producer, Source
from targets.device import native
from targets.device.host import host_isa
from targets.device.native import LIBRARY_NAME, foreign_library, isa_name, platform_name, serving_library

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


def placed(artifact: Path, library: Path) -> Path:
    place(artifact).parent.mkdir(parents=True)
    return Path(shutil.copyfile(library, place(artifact)))


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Path:
    library = compiled(tmp_path / "installed.so", ENTRY)
    monkeypatch.setattr(native, "library_path", lambda: library)
    return library


BARE = Manifest(
    1, Producer("slmc", "0"), "now", Source("m", "spikegpt", "", 1), Io("t", "l", ()), {}, Bytes(1, 1, 1, 1),
    None, None, None, (), {},
)  # fmt: skip
MARKS = """#include <stdlib.h>
#include <stdio.h>
__attribute__((constructor)) static void run(void) { FILE *f = fopen(getenv("RAN"), "w"); if (f) fclose(f); }
"""


def test_the_installed_one_serves_an_artifact_that_brings_the_same(tmp_path, installed):
    placed(tmp_path / "a", installed)
    assert serving_library(tmp_path / "a") == installed.resolve() and not foreign_library(tmp_path / "a")
    assert serving_library(tmp_path / "a", own=True) == place(tmp_path / "a").resolve()


def test_an_artifact_without_one_is_served_too(tmp_path, installed):
    assert serving_library(tmp_path / "a") == installed.resolve() == serving_library(tmp_path / "a", own=True)


def named(artifact: Path, operators: dict[str, str] | None) -> None:
    (artifact / "manifest.json").write_text(dataclasses.replace(BARE, operators=operators).to_json())


def build(path: Path, digit: str, more: str = "") -> Path:
    return compiled(path, f'{ENTRY}const char *slmc_build_id(void) {{ return "slmc_build_id={digit * 64}"; }}\n{more}')


@pytest.mark.parametrize(
    ("operators", "served"),
    [
        ({platform_name(): "a" * 64}, True),
        ({platform_name(): "b" * 64}, False),
        ({"linux-other": "a" * 64}, False),
        ({platform_name(): ""}, False),
        ({}, False),
        (None, False),
    ],
)
def test_the_installed_one_serves_what_was_compiled_from_its_sources_elsewhere(
    tmp_path, monkeypatch, operators, served
):
    """What the brought library says of itself does not count, and it is not loaded: its manifest is compared."""
    installed = build(tmp_path / "installed.so", "a")
    monkeypatch.setattr(native, "library_path", lambda: installed)
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    placed(tmp_path / "a", build(tmp_path / "elsewhere.so", "a", MARKS))
    named(tmp_path / "a", operators)
    assert foreign_library(tmp_path / "a") is not served
    assert serving_library(tmp_path / "a") == (installed.resolve() if served else None)
    assert not (tmp_path / "ran").exists()


def test_an_installed_one_that_names_no_sources_serves_only_its_own_bytes(tmp_path, installed):
    placed(tmp_path / "a", build(tmp_path / "elsewhere.so", "a"))
    named(tmp_path / "a", {platform_name(): "a" * 64})
    assert foreign_library(tmp_path / "a") and serving_library(tmp_path / "a") is None


@pytest.mark.parametrize("here", [True, False])
def test_foreign_code_is_not_even_opened_unless_it_is_asked_for(tmp_path, monkeypatch, here, installed):
    if not here:
        monkeypatch.setattr(native, "library_path", lambda: (_ for _ in ()).throw(NotAvailable("not installed")))
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    placed(tmp_path / "a", compiled(tmp_path / "foreign.so", MARKS + ENTRY))
    assert foreign_library(tmp_path / "a") and serving_library(tmp_path / "a") is None
    assert not (tmp_path / "ran").exists()
    assert serving_library(tmp_path / "a", own=True) == place(tmp_path / "a").resolve()
    assert (tmp_path / "ran").exists()


def test_a_damaged_one_gives_way_to_the_installed_where_it_was_asked_for(tmp_path, installed):
    place(tmp_path).parent.mkdir(parents=True)
    place(tmp_path).write_bytes(b"for another machine")
    assert serving_library(tmp_path, own=True) == installed.resolve()
    assert serving_library(tmp_path) is None


def test_nothing_there(tmp_path, nothing_installed):
    assert serving_library(tmp_path) is None and serving_library(tmp_path, own=True) is None


def test_a_library_without_operators_does_not_serve(tmp_path, nothing_installed):
    compiled(place(tmp_path), ISA)
    assert serving_library(tmp_path, own=True) is None


def test_isa(tmp_path):
    assert isa_name(compiled(tmp_path / "says.so", ENTRY + ISA)) == "testisa"
    assert isa_name(compiled(tmp_path / "silent.so", ENTRY)) == host_isa()
    assert isa_name(None) == host_isa()
    assert isa_name(tmp_path / "missing.so") == host_isa()
