"""Python of an aarch64 processor on this machine: qemu over the folder that targets.remote.sysroot makes."""

from __future__ import annotations

import shutil
from pathlib import Path

from exporters.artifact.errors import NotAvailable, SlmcError

QEMU = "qemu-aarch64"
_ARMV8_0 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_ARMV8_2 = f"{_ARMV8_0} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
CPUS = {
    "cortex-a53": ("0xd03", _ARMV8_0),
    "cortex-a72": ("0xd08", _ARMV8_0),
    "cortex-a76": ("0xd0b", _ARMV8_2),
    "neoverse-n1": ("0xd0c", _ARMV8_2),
}
"""Processors by qemu's name: Arm's part number and the kernel's feature words (the last two have dot products)."""
DEFAULT_CPU = "cortex-a72"


def emulated_python(sysroot: Path, cpu: str = DEFAULT_CPU) -> tuple[str, ...]:
    """What to put before Python's own arguments to run them under emulation, with numpy, onnxruntime and tokenizers.

    Paths mean the same files inside as outside. The emulated sys.executable is this very command, so that child
    processes run under emulation too. Correctness can be judged so, speed cannot.

    Raises:
        SlmcError: `cpu` is none of CPUS.
        NotAvailable: qemu is not installed, or `sysroot` was not prepared.
    """
    if cpu not in CPUS:
        raise SlmcError(f"processor {cpu!r} is not known to the emulation; allowed are {', '.join(CPUS)}")
    if shutil.which(QEMU) is None:
        raise NotAvailable(f"{QEMU} is not installed: it emulates aarch64; install Debian's qemu-user")
    python = sysroot.absolute() / "cpus" / cpu / "python"
    if not python.is_file():
        raise NotAvailable(
            f"{sysroot}: no aarch64 Python there; prepare it with 'python -m targets.remote.sysroot {sysroot}'"
        )
    return (str(python),)


def write_cpus(sysroot: Path) -> None:
    """One view of a folder of aarch64 programs per processor: links to it, a /proc/cpuinfo, and the command `python`.

    ONNX Runtime reads /proc/cpuinfo at load: the host's makes it crash, another processor's lets it use instructions
    that the emulated one lacks.
    """
    for cpu, (part, features) in CPUS.items():
        view = sysroot / "cpus" / cpu
        (view / "proc").mkdir(parents=True)
        for name in ("lib", "usr"):
            (view / name).symlink_to(f"../../{name}")
        core = f"Features\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
        core += f"CPU part\t: {part}\nCPU revision\t: 4\n\n"
        (view / "proc" / "cpuinfo").write_text("".join(f"processor\t: {i}\n{core}" for i in range(4)), encoding="ascii")
        (view / "python").write_text(_COMMAND.format(qemu=QEMU, cpu=cpu), encoding="ascii")
        (view / "python").chmod(0o755)


_COMMAND = """#!/bin/sh
# Python on an emulated {cpu}.
here=$(cd "$(dirname "$0")" && pwd)
exec {qemu} -cpu {cpu} -L "$here" -0 "$here/python" -E "PYTHONHOME=$here/usr" "$here/usr/bin/python3.11" "$@"
"""
