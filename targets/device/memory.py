"""The scale: what a process holds in memory, read from the kernel's own accounts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exporters.artifact.errors import NotAvailable
from targets.device.control_groups import room_in_groups

_KIB = 1024
_PROC = Path("/proc")


@dataclass(frozen=True)
class Memory:
    """One weighing of a process, all in bytes.

    rss = private + shared with other processes; rss = anonymous + file_backed, where file-backed pages (mapped weights,
    program text) can be dropped by the kernel and read again. peak is the highest rss since the program started.
    """

    rss_bytes: int
    pss_bytes: int
    private_bytes: int
    anonymous_bytes: int
    file_backed_bytes: int
    peak_bytes: int


def weigh(process: Path = _PROC / "self") -> Memory:
    """The process whose folder in /proc is given; this one by default.

    The peak is VmHWM and not getrusage's ru_maxrss: that one survives exec, so that a child process would inherit the
    peak of a large parent. VmHWM counts pages in batches per CPU; the exact rss is taken where it is larger.

    Raises:
        NotAvailable: no /proc with smaps_rollup (Linux 4.14 or later has it).
    """
    try:
        rollup = (process / "smaps_rollup").read_text(encoding="ascii", errors="replace")
        status = (process / "status").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise NotAvailable(
            f"{process}: cannot weigh this process ({error}); memory is measured on Linux 4.14 or later"
        ) from error
    return memory_from(rollup, status)


def memory_from(smaps_rollup: str, status: str) -> Memory:
    """A weighing from the texts of /proc/PID/smaps_rollup and /proc/PID/status.

    Raises:
        NotAvailable: a line that is needed is not there.
    """
    rollup = kib_lines(smaps_rollup)
    try:
        rss, anonymous = rollup["Rss"], rollup["Anonymous"]
        private = rollup["Private_Clean"] + rollup["Private_Dirty"]
        return Memory(rss, rollup["Pss"], private, anonymous, rss - anonymous, max(kib_lines(status)["VmHWM"], rss))
    except KeyError as error:
        raise NotAvailable(
            f"/proc: this kernel does not say {error.args[0]}; memory is measured on Linux 4.14 or later"
        ) from error


def kib_lines(text: str) -> dict[str, int]:
    """The 'Name:  123 kB' lines of a file in /proc, in bytes."""
    amounts = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[2] == "kB" and fields[1].isdigit():
            amounts[fields[0].rstrip(":")] = int(fields[1]) * _KIB
    return amounts


def available_bytes(meminfo: Path = _PROC / "meminfo", process: Path = _PROC / "self") -> int | None:
    """Memory that this program can have without swapping, within its control groups; None where nothing says so.

    Args:
        meminfo: the machine's account.
        process: the folder of this process in /proc.
    """
    try:
        machine = kib_lines(meminfo.read_text(encoding="ascii", errors="replace")).get("MemAvailable")
    except OSError:
        machine = None
    return min((room for room in (machine, room_in_groups(process)) if room is not None), default=None)
