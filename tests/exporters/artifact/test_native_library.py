"""Where the kernels are looked for, and what is said where they are not."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.machinery
import sys
from pathlib import Path

import pytest

import exporters
from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.native_library import build_id, library, library_path


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty place, the only one where packages are looked for."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [importlib.machinery.PathFinder])
    importlib.invalidate_caches()
    library.cache_clear()
    yield tmp_path
    library.cache_clear()


def test_no_folder(packages):
    with pytest.raises(NotAvailable, match=r"libslmc_ops\.so is not installed.*'slmc_native'.*pip install") as error:
        library_path()
    assert error.value.exit_code == 5


def test_a_folder_without_the_library(packages):
    (packages / "slmc_native").mkdir()
    with pytest.raises(NotAvailable, match="is not installed"):
        library_path()


def test_a_folder_in_the_librarys_place(packages):
    (packages / "slmc_native" / "libslmc_ops.so").mkdir(parents=True)
    with pytest.raises(NotAvailable, match="is not installed"):
        library_path()


def test_a_module_in_the_folders_place(packages):
    (packages / "slmc_native.py").write_text("")
    with pytest.raises(NotAvailable, match="is not installed"):
        library_path()


def test_the_library_is_found(packages):
    (packages / "slmc_native").mkdir()
    file = packages / "slmc_native" / "libslmc_ops.so"
    file.write_bytes(b"")
    assert library_path() == file


def test_calls_need_the_library_too(packages):
    with pytest.raises(NotAvailable, match="is not installed"):
        library()


def test_a_damaged_library(packages):
    (packages / "slmc_native").mkdir()
    (packages / "slmc_native" / "libslmc_ops.so").write_bytes(b"not a library")
    with pytest.raises(NotAvailable, match=r"libslmc_ops\.so cannot be loaded"):
        library()


def test_the_installed_library_is_loaded_once(native_path):
    assert library() is library()
    assert library()._name == native_path


def test_the_build_is_named_by_the_hash_of_its_sources(native_path):
    """As `sha256sum *.cc *.h CMakeLists.txt | sha256sum` in exporters/native gives it, whatever compiled them."""
    native = Path(exporters.__file__).parent / "native"
    names = sorted([*(p.name for p in native.glob("*.cc")), *(p.name for p in native.glob("*.h")), "CMakeLists.txt"])
    lines = "".join(f"{hashlib.sha256((native / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    library = ctypes.CDLL(str(native_path))
    library.slmc_build_id.restype = ctypes.c_char_p
    assert build_id(Path(native_path)) == library.slmc_build_id().decode() == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x7fELF..slmc_build_id=" + b"0f" * 32 + b"\0..", "0f" * 32),
        (b"\x7fELF..slmc_build_id=" + b"0F" * 32 + b"\0..", None),
        (b"\x7fELF..slmc_build_id=" + b"0f" * 31 + b"\0..", None),
        (b"\x7fELF..slmc_build_id=" + b"0f" * 33 + b"\0..", None),
        (b"", None),
    ],
)
def test_what_a_file_says_of_its_build(tmp_path, content, expected):
    (tmp_path / "x.so").write_bytes(content)
    assert build_id(tmp_path / "x.so") == expected


def test_the_build_of_no_file(tmp_path):
    with pytest.raises(SlmcError, match=r"x\.so"):
        build_id(tmp_path / "x.so")
