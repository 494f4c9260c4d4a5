"""What this machine says of its CPU: model, instruction set, cores, caches, memory, temperature."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from targets.device.memory import kib_lines

_ROOT = Path("/")

# The best instruction set first; an entry holds if all its flags are in /proc/cpuinfo.
_ISA_BY_FLAGS: Final[tuple[tuple[str, frozenset[str]], ...]] = (
    ("avx512_vnni", frozenset({"avx512f", "avx512bw", "avx512vl", "avx512_vnni"})),
    ("avx512", frozenset({"avx512f", "avx512bw", "avx512vl"})),
    ("avx_vnni", frozenset({"avx2", "fma", "avx_vnni"})),
    ("avx2", frozenset({"avx2", "fma"})),
    ("sse2", frozenset({"sse2"})),
    ("neon_i8mm", frozenset({"asimd", "asimddp", "i8mm"})),
    ("neon_dotprod", frozenset({"asimd", "asimddp"})),
    ("neon", frozenset({"asimd"})),
)
# Part numbers of Arm's own cores (implementer 0x41), from their Technical Reference Manuals, MIDR_EL1.
_ARM_PARTS: Final = {
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD40: "Neoverse-V1",
    0xD49: "Neoverse-N2",
}


@dataclass(frozen=True, kw_only=True)
class HostCpu:
    """This machine's CPU; None for what it does not say. isa: the best instruction set that our kernels know."""

    architecture: str
    model: str
    isa: str
    cores: int | None
    l1d_bytes: int | None
    l2_bytes: int | None
    l3_bytes: int | None
    memory_bytes: int | None

    @property
    def last_cache_bytes(self) -> int:
        """Bytes of the largest cache; 0 where the machine does not say."""
        return self.l3_bytes or self.l2_bytes or self.l1d_bytes or 0


def host_cpu(root: Path = _ROOT) -> HostCpu:
    """This machine's CPU, from /proc and /sys below `root`."""
    cpuinfo = _text(root / "proc/cpuinfo")
    caches = _caches(root / "sys/devices/system/cpu/cpu0/cache")
    return HostCpu(
        architecture=platform.machine(),
        model=_model(cpuinfo, _text(root / "proc/device-tree/model")),
        isa=isa_from_cpuinfo(cpuinfo),
        cores=_cores(),
        l1d_bytes=caches.get(1),
        l2_bytes=caches.get(2),
        l3_bytes=caches.get(3),
        memory_bytes=kib_lines(_text(root / "proc/meminfo")).get("MemTotal"),
    )


def host_isa() -> str:
    """The best instruction set that this machine offers, e.g. 'avx2'."""
    return isa_from_cpuinfo(_text(_ROOT / "proc/cpuinfo"))


def isa_from_cpuinfo(cpuinfo: str) -> str:
    """The best instruction set named in a /proc/cpuinfo text: its 'flags' (x86) or 'Features' (Arm) line."""
    flags = frozenset(f"{_entry(cpuinfo, 'flags')} {_entry(cpuinfo, 'Features')}".split())
    return next((isa for isa, needed in _ISA_BY_FLAGS if needed <= flags), "unknown")


def temperature_c(root: Path = _ROOT) -> float | None:
    """The hottest thermal zone in degrees Celsius; None where the machine does not say."""
    readings = [_text(path).strip() for path in (root / "sys/class/thermal").glob("thermal_zone*/temp")]
    degrees = [int(reading) / 1000 for reading in readings if reading.lstrip("-").isdigit()]
    return max(degrees, default=None)


def _cores() -> int | None:
    # A container may be allowed fewer cores than the machine has; those are the ones that count.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _model(cpuinfo: str, board: str) -> str:
    """The CPU's name: x86 says it; Arm's Linux says a part number, and the board's name elsewhere."""
    named = _entry(cpuinfo, "model name")
    if named:
        return named
    implementer, part = _entry(cpuinfo, "CPU implementer"), _entry(cpuinfo, "CPU part")
    core = known_core(f"implementer {implementer} part {part}") if part else "unknown"
    board = board.strip("\0\n ")
    return f"{core} ({board})" if board else core


def known_core(name: str) -> str:
    """A CPU's name with that of Arm's own core in the place of the numbers that Linux says."""
    for part, core in _ARM_PARTS.items():
        name = name.replace(f"implementer 0x41 part {part:#05x}", core)
    return name


def _entry(cpuinfo: str, name: str) -> str:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _caches(folder: Path) -> dict[int, int]:
    """Bytes of the data cache of each level."""
    sizes = {}
    for index in folder.glob("index*"):
        level, size = _text(index / "level").strip(), _text(index / "size").strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(size[-1:], 0)
        if _text(index / "type").strip() in ("Data", "Unified") and level.isdigit() and size[:-1].isdigit() and unit:
            sizes[int(level)] = int(size[:-1]) * unit
    return sizes


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
