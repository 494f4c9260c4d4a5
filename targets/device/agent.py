"""The program on a device: takes files, checks them, runs the measured process, and leaves nothing behind.

It is sent through the connection as text and needs nothing but Python's own library, so that it can say what is
missing. Requests are lines of JSON on stdin, each answered by one on stdout. Its folder goes when it ends: at the end
of stdin (the visit is over, or the connection gone) or by a signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO

POLL_S = 0.05
BLOCK_BYTES = 1 << 20
TAIL_CHARACTERS = 4000
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class Refused(Exception):
    """A request that cannot be met; kind is what the other side tells apart."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class ConnectionGone(Exception):
    """Nobody listens any more."""


def facts(request: dict[str, Any]) -> dict[str, Any]:
    """What this machine has: Python, platform, the named packages' versions, room in the folder for temporary files."""
    versions: dict[str, str | None] = {}
    for name in request["packages"]:
        versions[name] = None
        if importlib.util.find_spec(name) is not None:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                versions[name] = importlib.metadata.version(name)
    place = request["place"] or tempfile.gettempdir()
    if not os.access(place, os.W_OK | os.X_OK):
        raise Refused("place", f"{place} is no folder that this user can write to; name another with --remote-dir")
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "packages": versions,
        "place": place,
        "free_bytes": shutil.disk_usage(place).free,
        "cores": len(os.sched_getaffinity(0)),
    }


class Agent:
    """One folder, from its making to its end."""

    def __init__(self, stdin: BinaryIO) -> None:
        self._stdin = stdin
        self._folder: Path | None = None
        self._child: subprocess.Popen[str] | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request's answer.

        Raises:
            Refused: it cannot be met here.
        """
        actions = {"facts": facts, "receive": self.receive, "run": self.run}
        return actions[request["do"]](request)

    def receive(self, request: dict[str, Any]) -> dict[str, Any]:
        """Write the files that follow on stdin, one after the other, into the folder of this visit, which is new the
        first time; check each one's SHA-256."""
        folder = Path(request["folder"])
        try:
            if folder != self._folder:
                folder.mkdir(mode=0o700)
                self._folder = folder
            for name, size, sha256 in request["files"]:
                self._receive_file(folder / name, size, sha256)
        except OSError as error:
            raise Refused("disk", f"{folder}: {error.strerror}") from error
        return {"files": len(request["files"])}

    def _receive_file(self, path: Path, size: int, sha256: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest, left = hashlib.sha256(), size
        with path.open("xb") as file:
            while left:
                block = self._stdin.read(min(left, BLOCK_BYTES))
                if not block:
                    raise ConnectionGone
                digest.update(block)
                file.write(block)
                left -= len(block)
        if digest.hexdigest() != sha256:
            raise Refused("arrival", f"{path.name} arrived with other contents than it was sent with (SHA-256 differs)")

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run a program with a text on stdin until it ends, runs out of time or memory, or nobody listens any more."""
        assert self._folder is not None, "run before receive"
        packages = self._folder / "packages"
        sys.path.insert(0, str(packages))
        from targets.device.limits import confine

        environment = {**os.environ, "PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"}
        with confine(request["memory_bytes"], request["cores"]) as confinement:
            self._child = subprocess.Popen(
                request["argv"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                encoding="utf-8", errors="replace", cwd=packages, env=environment, start_new_session=True,
                preexec_fn=functools.partial(begin, confinement),
            )  # fmt: skip
            confinement.watch(self._child.pid)
            stdout, stderr, timed_out = self._wait(request["stdin"], request["timeout_s"])
            found = confinement.found()
        returncode = self._child.returncode
        self._child = None
        return {
            "returncode": returncode, "stdout": stdout, "stderr": stderr[-TAIL_CHARACTERS:], "timed_out": timed_out,
            "limit": found,
        }  # fmt: skip

    def _wait(self, text: str, timeout_s: float) -> tuple[str, str, bool]:
        assert self._child is not None
        end, given = time.monotonic() + timeout_s, text
        while True:
            try:
                stdout, stderr = self._child.communicate(given, timeout=POLL_S)
                return stdout, stderr, False
            except subprocess.TimeoutExpired:
                given = ""  # what was given at first is remembered
            # The other side says nothing while it waits for an answer: something to read is the end of the connection.
            if select.select([self._stdin], [], [], 0)[0] and not self._stdin.peek(1):  # type: ignore[attr-defined]
                raise ConnectionGone
            if time.monotonic() > end:
                self.stop_child()
                stdout, stderr = self._child.communicate()
                return stdout, stderr, True

    def stop_child(self) -> None:
        """End the running program and all that it started."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)

    def leave(self) -> None:
        """Leave nothing behind."""
        self.stop_child()
        if self._child is not None:
            self._child.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def begin(confinement: Any) -> None:
    """In the new process: have it end when the agent is gone (prctl(2), PR_SET_PDEATHSIG), and set its limits."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    confinement.enter()


def stopped(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def serve(stdin: BinaryIO, write: Any) -> None:
    """Answer requests until there are no more."""
    agent = Agent(stdin)
    try:
        while line := stdin.readline():
            try:
                reply = agent.answer(json.loads(line))
            except Refused as error:
                reply = {"refused": {"kind": error.kind, "text": str(error)}}
            write(json.dumps(reply) + "\n")
            if "refused" in reply:
                return
    except (ConnectionGone, BrokenPipeError):
        return
    finally:
        agent.leave()


def main() -> None:
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stopped)
    stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def write(text: str) -> None:
        stdout.write(text)
        stdout.flush()

    serve(sys.stdin.buffer, write)


if __name__ == "__main__":
    main()
