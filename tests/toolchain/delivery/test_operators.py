"""Operator libraries: the platform from the header, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporters.artifact.errors import SlmcError
from exporters.artifact.native_library import library_path
from exporters.artifact.runtimes import SLMC_RUN
from targets.device.native import platform_name
from toolchain.delivery.operators import elf_platform, operator_libraries, runtime_programs


def elf(path: Path, machine: int) -> Path:
    """A file that begins as a 64-bit little-endian ELF library for a machine."""
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00" + machine.to_bytes(2, "little") + bytes(44))
    return path


def test_this_machines_own_library() -> None:
    assert elf_platform(library_path()) == platform_name()
    assert operator_libraries(()) == {platform_name(): library_path()}


def test_platforms_by_their_number(tmp_path: Path) -> None:
    assert elf_platform(elf(tmp_path / "a.so", 183)) == "linux-aarch64"
    assert elf_platform(elf(tmp_path / "x.so", 62)) == "linux-x86_64"


def test_another_platform_goes_along(tmp_path: Path) -> None:
    other = elf(tmp_path / "other.so", 62 if platform_name() == "linux-aarch64" else 183)
    assert set(operator_libraries((other,))) == {"linux-x86_64", "linux-aarch64"}


def test_two_for_one_platform() -> None:
    with pytest.raises(SlmcError, match=f"a second library for {platform_name()}"):
        operator_libraries((library_path(),))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no compiled library"),
        (b"MZ" + bytes(60), "no compiled library"),
        (b"\x7fELF\x01\x01" + bytes(58), "64-bit"),
    ],
)
def test_what_is_no_library(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "lib.so").write_bytes(content)
    with pytest.raises(SlmcError, match=words):
        elf_platform(tmp_path / "lib.so")


def test_a_machine_without_operators(tmp_path: Path) -> None:
    with pytest.raises(SlmcError, match="ELF machine 0xf3; allowed are linux-x86_64, linux-aarch64"):
        elf_platform(elf(tmp_path / "riscv.so", 0xF3))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SlmcError, match="cannot be read"):
        elf_platform(tmp_path / "none.so")


def test_runtime_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = library_path().parent / SLMC_RUN
    board = elf(tmp_path / "board", 0xF3)
    if own.is_file():
        assert runtime_programs((Path(SLMC_RUN), board)) == {platform_name(): own, "linux-riscv64": board}
    small = tmp_path / "small"
    small.write_bytes(b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x02\x00\x28\x00" + bytes(44))  # a 32-bit program
    assert runtime_programs((small,)) == {"linux-armv7l": small}
    assert runtime_programs(()) == {}


def test_what_is_no_runtime_program(tmp_path: Path) -> None:
    board, text = elf(tmp_path / "board", 0xF3), tmp_path / "text"
    text.write_text("#!/bin/sh\n" * 9)
    with pytest.raises(SlmcError, match="a second program for linux-riscv64"):
        runtime_programs((board, board))
    for path in (text, elf(tmp_path / "other", 8)):
        with pytest.raises(SlmcError, match="no program for linux-x86_64, linux-aarch64, linux-armv7l, linux-riscv64"):
            runtime_programs((path,))
    with pytest.raises(SlmcError, match="absent"):
        runtime_programs((tmp_path / "absent",))
