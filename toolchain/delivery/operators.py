"""Compiled files that go along in an artifact, for this machine and others: operator libraries, and slmc-run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from exporters.artifact.errors import SlmcError
from exporters.artifact.native_library import build_id, library_path
from exporters.artifact.opening import open_file
from exporters.artifact.runtimes import SLMC_RUN
from targets.device.native import platform_name
from targets.runtime.program import installed_program

ELF_MACHINES = {0x3E: "linux-x86_64", 0xB7: "linux-aarch64"}
"""e_machine of an ELF header -> the platform as artifacts spell it."""

RUNTIME_MACHINES = ELF_MACHINES | {0x28: "linux-armv7l", 0xF3: "linux-riscv64"}
"""The same for slmc-run, which needs neither Python nor ONNX Runtime there."""

_HEADER_BYTES = 20


def elf_platform(path: Path) -> str:
    """The platform that a shared library was compiled for.

    Raises:
        SlmcError: it cannot be read, is no 64-bit little-endian ELF file, or is for a machine without operators.
    """
    with open_file(path, "--native is a libslmc_ops.so; 'make native-aarch64' builds one") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or header[:6] != b"\x7fELF\x02\x01":
        raise SlmcError(f"--native {path}: no compiled library (a 64-bit ELF file); give a libslmc_ops.so")
    machine = int.from_bytes(header[18:20], "little")
    if machine not in ELF_MACHINES:
        allowed = ", ".join(ELF_MACHINES.values())
        raise SlmcError(f"--native {path}: compiled for ELF machine {machine:#x}; allowed are {allowed}")
    return ELF_MACHINES[machine]


def operator_libraries(more: Sequence[Path]) -> dict[str, Path]:
    """Platform -> library: this machine's own, and the given ones.

    Raises:
        SlmcError: one is no library, or two are for the same platform.
        NotAvailable: this installation has no compiled operators.
    """
    libraries = {platform_name(): library_path()}
    for path in more:
        platform = elf_platform(path)
        if platform in libraries:
            raise SlmcError(f"--native {path}: a second library for {platform}, beside {libraries[platform]}; give one")
        libraries[platform] = path
    return libraries


def build_ids(libraries: Mapping[str, Path]) -> dict[str, str]:
    """Platform -> id of the sources that its library was compiled from; a library that says none is left out."""
    return {platform: identity for platform, path in libraries.items() if (identity := build_id(path))}


def runtime_programs(given: Sequence[Path]) -> dict[str, Path]:
    """Platform -> slmc-run. `slmc-run` alone, where no such file is, stands for the one of this installation.

    Raises:
        SlmcError: one is no program, or two are for the same platform.
        NotAvailable: this installation has none.
    """
    programs: dict[str, Path] = {}
    for path in given:
        own = path == Path(SLMC_RUN) and not path.exists()
        found = installed_program() if own else path
        platform = platform_name() if own else _program_platform(path)
        if platform in programs:
            raise SlmcError(f"--runtime {path}: a second program for {platform}, beside {programs[platform]}; give one")
        programs[platform] = found
    return programs


def _program_platform(path: Path) -> str:
    with open_file(path, "--runtime is slmc-run or such a program; 'make runtime-cross' builds some") as file:
        header = file.read(_HEADER_BYTES)
    little = len(header) == _HEADER_BYTES and header[:4] == b"\x7fELF" and header[5] == 1
    machine = int.from_bytes(header[18:20], "little") if little else 0
    if machine not in RUNTIME_MACHINES:
        allowed = ", ".join(RUNTIME_MACHINES.values())
        raise SlmcError(f"--runtime {path}: no program for {allowed}; 'make runtime-cross' builds some")
    return RUNTIME_MACHINES[machine]
