"""How much memory the control groups of this process leave to it: version 1 or 2, its own and all around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

_PROC: Final = Path("/proc/self")


@dataclass(frozen=True)
class _Accounts:
    """Names of the files of one version, and of the lines of memory.stat that count files' pages, a subtree's."""

    controller: str | None
    limits: tuple[str, ...]
    used: str
    file_pages: tuple[str, ...]


_VERSIONS: Final = {
    "cgroup": _Accounts(
        "memory", ("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")
    ),
    "cgroup2": _Accounts(None, ("memory.max", "memory.high"), "memory.current", ("inactive_file", "active_file")),
}
"""By type of file system. Above memory.high a program is not killed, but all that it does is slowed down."""


def room_in_groups(process: Path = _PROC) -> int | None:
    """Bytes that the tightest control group around the process leaves; None where none has a limit.

    Pages of files count as free, for the kernel drops them before it kills. A limit that nobody set is "max" or a
    number beyond any memory.

    Args:
        process: a process's folder in /proc, with `cgroup` and `mountinfo` (cgroups(7), proc(5)).
    """
    mine = _memberships(_text(process / "cgroup"))
    rooms: list[int] = []
    for line in _text(process / "mountinfo").splitlines():
        mounted, _, rest = line.partition(" - ")
        fields, filesystem = mounted.split(), rest.split()
        accounts = _VERSIONS.get(filesystem[0]) if filesystem and len(fields) > 4 else None
        if accounts is None or accounts.controller not in {None, *filesystem[-1].split(",")}:
            continue
        group = mine.get(accounts.controller)
        for folder in _groups(Path(fields[4]), PurePosixPath(fields[3]), group) if group else ():
            rooms += _rooms(folder, accounts)
    return min(rooms, default=None)


def _memberships(text: str) -> dict[str | None, PurePosixPath]:
    """The group of each controller from lines `number:controllers:path`; version 2 names none."""
    found: dict[str | None, PurePosixPath] = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for name in controllers.split(",") if controllers else [None] if number == "0" else []:
            found[name] = PurePosixPath(path)
    return found


def _groups(mount: Path, root: PurePosixPath, group: PurePosixPath) -> Iterator[Path]:
    """Folders of a group and of those around it, as far as they are mounted here."""
    inside = group.relative_to(root) if group.is_relative_to(root) else PurePosixPath()
    for parts in range(len(inside.parts), -1, -1):
        yield mount.joinpath(*inside.parts[:parts])


def _rooms(folder: Path, accounts: _Accounts) -> Iterator[int]:
    used = _text(folder / accounts.used).strip()
    if not used.isdigit():
        return
    lines = dict(line.split(maxsplit=1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
    files = sum(int(lines.get(name, "0")) for name in accounts.file_pages)
    for name in accounts.limits:
        limit = _text(folder / name).strip()
        if limit.isdigit():
            yield max(0, int(limit) - max(0, int(used) - files))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
