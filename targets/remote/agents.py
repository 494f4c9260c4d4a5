"""The programs at the other end of a visit: our Python in one file where there is Python, or slmc-run alone."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from exporters.artifact.errors import NotAvailable
from exporters.artifact.manifest import Manifest
from exporters.artifact.runtimes import SLMC_RUN
from targets.device.native import LIBRARY_NAME, machine_platform
from targets.remote.connection import Connection, Starting
from targets.remote.shipment import PACKAGES as OUR_PACKAGES
from targets.remote.shipment import Parcel, model_parcels, packages, parcel, shipment
from targets.remote.transport import Transport, last_line
from targets.runtime.program import worker_words

PACKAGES: Final = {"numpy": ">=2", "onnxruntime": ">=1.24", "tokenizers": ">=0.21"}
"""What must be on a device that runs Python; a test compares it with pyproject.toml."""

LEAST_PYTHON: Final = (3, 11)
_AGENT: Final = Path(__file__).parents[1] / "device" / "agent.py"
_OLD_PYTHON: Final = "slmc: python "
_BLOCK_BYTES: Final = 4096
_NOT_FOUND: Final = (126, 127)
_NO_ROOM: Final = 3
_WITHOUT: Final = f"use --runtime {SLMC_RUN}, which needs nothing there"

ProgramFor = Callable[[str], Path]
"""slmc-run for a platform ('linux-aarch64'); NotAvailable where there is none."""


class Agent(Protocol):
    """What is started there, and how it is asked."""

    @property
    def needs_python(self) -> bool:
        """Whether there must be a Python."""

    def open(self, transport: Transport, place: str) -> Connection:
        """A connection that starts it, or what sends for it.

        Raises:
            NotAvailable: the transport's program does not start.
        """

    def begin(self, connection: Connection) -> None:
        """All that comes before the first request.

        Raises:
            NotAvailable: it cannot be started there.
        """

    def check(self, transport: Transport, python: str, packages: dict[str, str | None]) -> None:
        """
        Raises:
            NotAvailable: what it needs there is missing; the text says how to get it.
        """

    def parcels(self, artifact: Path, manifest: Manifest, platform: str, *, native: bool) -> tuple[Parcel, ...]:
        """The files that are sent."""

    def tools(self, library: Path | None) -> tuple[Parcel, ...]:
        """The files that are sent to a machine that is probed, beside its graphs; library: compiled operators."""

    def words(self, transport: Transport, place: str, module: str, wanted: str) -> list[str]:
        """The command line there that answers a job as this module of ours does, with a document of what is wanted."""

    def left(self, folder: str) -> str:
        """What is to be removed there if nobody did."""


class PythonAgent:
    """targets/device/agent.py, sent as text to a Python there."""

    needs_python = True

    def open(self, transport: Transport, place: str) -> Connection:
        source = _AGENT.read_bytes()
        code = (
            f"import sys; s=sys.stdin.buffer.read({len(source)}); v=sys.version_info[:2]; "
            f"v>={LEAST_PYTHON} or sys.exit('{_OLD_PYTHON}%d.%d'%v); exec(compile(s,'agent','exec'))"
        )
        # With '|| exit' the shell stays until the end and can say that a signal ended the program.
        command = shlex.join([*transport.python, "-c", code]) + " || exit"
        python = transport.python
        return Connection(transport, Starting(command, source, lambda code, said: _no_python(python, code, said)))

    def begin(self, connection: Connection) -> None:
        """Its text goes ahead of the first request."""

    def check(self, transport: Transport, python: str, packages: dict[str, str | None]) -> None:
        missing = [package for package in PACKAGES if packages.get(package) is None]
        old = [
            f"{package} {packages[package]}"
            for package, least in PACKAGES.items()
            if package not in missing and numbers(packages[package] or "") < numbers(least.removeprefix(">="))
        ]
        if not missing and not old:
            return
        words = shlex.join(transport.python)
        what = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(old)}, which is too old"
        wanted = " ".join(shlex.quote(package + least) for package, least in PACKAGES.items())
        raise NotAvailable(
            f"{transport.name}: {words} (Python {python}) there {what}; run there: {words} -m pip install {wanted}, "
            f"or {_WITHOUT}"
        )

    def parcels(self, artifact: Path, manifest: Manifest, platform: str, *, native: bool) -> tuple[Parcel, ...]:
        return shipment(artifact, manifest, platform, native=native)

    def tools(self, library: Path | None) -> tuple[Parcel, ...]:
        own = () if library is None else (parcel(library, f"{OUR_PACKAGES}/slmc_native/{LIBRARY_NAME}"),)
        return (*packages(), *own)

    def words(self, transport: Transport, place: str, module: str, wanted: str) -> list[str]:
        return [*transport.python, "-m", module]

    def left(self, folder: str) -> str:
        return folder


PYTHON_AGENT: Final = PythonAgent()


@dataclass(frozen=True)
class RuntimeAgent:
    """slmc-run, sent to a machine that has a shell, mkdir, dd, chmod, rm and uname, as every Linux does.

    The shell there waits for the program and removes the folder behind it, as the program itself does at its end.
    """

    program_for: ProgramFor
    needs_python: bool = field(default=False, init=False)

    def open(self, transport: Transport, place: str) -> Connection:
        where = shlex.quote(place) if place else '"${TMPDIR:-/tmp}"'
        script = (
            f"f={where}/slmc-{uuid.uuid4().hex}; umask 077; "
            # A folder that was there before is not ours to remove; until one is made, no signal may come in between.
            f'trap "" HUP INT TERM; mkdir "$f" || exit {_NO_ROOM}; '
            'gone() { rm -rf "$f"; }; trap gone EXIT; trap "exit 129" HUP INT TERM; '
            f"uname -s -m; read -r n || exit {_NO_ROOM}; "
            f'said=$(dd bs={_BLOCK_BYTES} count="$n" iflag=fullblock of="$f/{SLMC_RUN}" 2>&1) || '
            f'{{ echo "$said" >&2; exit {_NO_ROOM}; }}; '
            f'chmod 700 "$f/{SLMC_RUN}" && {self._start(transport)}"$f/{SLMC_RUN}" --agent "$f"'
        )
        command = f"/bin/sh -c {shlex.quote(script)} || exit"
        return Connection(transport, Starting(command, b"", lambda code, said: _not_started(place, code, said)))

    def begin(self, connection: Connection) -> None:
        system, _, machine = connection.line().strip().partition(" ")
        platform = connection.transport.platform or machine_platform(system, machine)
        program = self.program_for(platform).read_bytes()
        program += bytes(-len(program) % _BLOCK_BYTES)  # behind a program's sections nothing is read
        connection.send(f"{len(program) // _BLOCK_BYTES}\n".encode() + program)

    def check(self, transport: Transport, python: str, packages: dict[str, str | None]) -> None:
        """It needs nothing."""

    def parcels(self, artifact: Path, manifest: Manifest, platform: str, *, native: bool) -> tuple[Parcel, ...]:
        return model_parcels(artifact, manifest)

    def tools(self, library: Path | None) -> tuple[Parcel, ...]:
        return ()

    def words(self, transport: Transport, place: str, module: str, wanted: str) -> list[str]:
        return [*transport.emulator, *worker_words(f"{place}/{SLMC_RUN}", wanted)]

    def left(self, folder: str) -> str:
        return folder.rpartition("/")[0]

    @staticmethod
    def _start(transport: Transport) -> str:
        return "".join(f"{shlex.quote(word)} " for word in transport.emulator)


def numbers(version: str) -> tuple[int, ...]:
    """(1, 24) of '1.24'; what follows the numbers does not count."""
    found = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        found.append(int(part))
    return tuple(found)


def _no_python(python: tuple[str, ...], code: int, said: str) -> str | None:
    """Why Python did not start."""
    if code in _NOT_FOUND:
        missing = f"no {shlex.join(python)} there ({last_line(said)})"
        return f"{missing}; install Python 3.11, name one with --remote-python, or {_WITHOUT}"
    if _OLD_PYTHON not in said:
        return None
    found, least = said.rpartition(_OLD_PYTHON)[2].split()[0], ".".join(map(str, LEAST_PYTHON))
    return f"Python {found} is too old, {least} is needed; name another with --remote-python, or {_WITHOUT}"


def _not_started(place: str, code: int, said: str) -> str | None:
    """Why slmc-run did not start."""
    if code == _NO_ROOM:
        why = next((line for line in said.splitlines() if "records" not in line), "no room")
        return f"{why}; free some room there, or name another folder with --remote-dir"
    if code in _NOT_FOUND:
        where = place or "its folder for temporary files"
        return f"{SLMC_RUN} does not start there ({last_line(said)}); if {where} allows no programs, give --remote-dir"
    return None
