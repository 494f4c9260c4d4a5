"""A connection to a device: the agent started there, requests and answers as lines of JSON, and the ways to end."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

from exporters.artifact.errors import NotAvailable, SlmcError
from targets.remote.transport import Transport, last_line

_CLOSE_S: Final = 10.0
_LINES_KEPT: Final = 50


@dataclass(frozen=True)
class Starting:
    """How the program at the other end is started.

    Args:
        command: for the shell there.
        first: what it reads before the first request.
        explain: why it did not start, by the shell's exit code and stderr; None if these say nothing of it.
    """

    command: str
    first: bytes
    explain: Callable[[int, str], str | None]


class Connection:
    """The agent at work on the other side. Every failure is an SlmcError that begins with the transport's name."""

    def __init__(self, transport: Transport, starting: Starting) -> None:
        self.transport, self._starting = transport, starting
        self._stderr: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._late = ""
        argv = transport.argv(starting.command)
        try:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise NotAvailable(f"{transport.name}: cannot start {argv[0]}: {error.strerror}") from error
        self._readers = [
            threading.Thread(target=self._read_lines, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_stderr, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self._first = starting.first

    def ask(self, request: dict[str, Any]) -> Any:
        """One request's answer.

        Raises:
            SlmcError: files arrived altered.
            NotAvailable: it was refused, or the connection has ended; the text says why.
        """
        self.send(json.dumps(request).encode() + b"\n")
        return self.reply()

    def send(self, data: bytes) -> None:
        """Bytes for the agent.

        Raises:
            as `ask`.
        """
        assert self._process.stdin is not None
        data, self._first = self._first + data, b""
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except OSError:  # it may have said why before it went
            self.reply()
            raise self._gone() from None

    def reply(self) -> Any:
        """The next answer.

        Raises:
            as `ask`.
        """
        line = self.line()
        try:
            reply = json.loads(line)
        except json.JSONDecodeError:
            raise NotAvailable(
                f"{self.transport.name}: {line.strip()[:200]!r} came instead of an answer; "
                "login scripts there must print nothing when there is no terminal"
            ) from None
        if isinstance(reply, dict) and "refused" in reply:
            kind, text = reply["refused"]["kind"], reply["refused"]["text"]
            raise (SlmcError if kind == "arrival" else NotAvailable)(f"{self.transport.name}: {text}")
        return reply

    def line(self) -> str:
        """The next line from there.

        Raises:
            NotAvailable: the connection has ended; the text says why.
        """
        line = self._lines.get()
        if not line:
            self._lines.put("")
            raise self._gone()
        return line

    @contextlib.contextmanager
    def deadline(self, what: str, seconds: float) -> Iterator[None]:
        """End the connection if the body takes longer; whoever waits in it is told `what` was not done."""

        def over() -> None:
            self._late = f"{what} within {seconds:g} s"
            self._kill()

        timer = threading.Timer(seconds, over)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def close(self) -> bool:
        """End it; whether the agent ended by itself and so has removed its folder."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            clean = self._process.wait(_CLOSE_S) == 0
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
            clean = False
        for reader in self._readers:
            reader.join(_CLOSE_S)
        return clean

    def remove(self, folder: str) -> None:
        """Remove a folder there over a connection of its own, if there is a way."""
        argv = self.transport.argv(f"rm -rf {shlex.quote(folder)}")
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)

    def _gone(self) -> NotAvailable:
        """Why nothing comes any more."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_S)
        self._kill()
        code = self._process.wait()
        for reader in self._readers:
            reader.join(_CLOSE_S)
        name, said = self.transport.name, "".join(self._stderr)
        if self._late:
            return NotAvailable(f"{name}: it {self._late}; repeat the command, or see what keeps that machine busy")
        if (why := self.transport.explain(code, said) or self._starting.explain(code, said)) is not None:
            return NotAvailable(f"{name}: {why}")
        number = code - 128 if code > 128 else -code
        if number > 0:
            return NotAvailable(f"{name}: {killed(number, said, 'our process there')}")
        return NotAvailable(f"{name}: our process there ended with exit code {code}: {last_line(said)}")

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # jump hosts have processes of their own

    def _read_lines(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            self._lines.put(line.decode("utf-8", "replace"))
        self._lines.put("")

    def _read_stderr(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            self._stderr.append(line.decode("utf-8", "replace"))
            del self._stderr[:-_LINES_KEPT]


def killed(number: int, stderr: str, what: str) -> str:
    """What to say of a process that a signal ended."""
    try:
        said = signal.Signals(number).name
    except ValueError:
        said = f"signal {number}"
    hint = "; the system does this when memory runs out: free some or use a smaller model" if said == "SIGKILL" else ""
    return f"{what} was killed by {said}{hint} (it last said: {last_line(stderr)})"
