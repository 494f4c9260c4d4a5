"""The way to another machine: how a command line is started there, and what it means when the way fails."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from exporters.artifact.errors import NotAvailable, SlmcError

LOCAL: Final = "local"
EMULATED: Final = "qemu-aarch64"
EMULATORS: Final = {EMULATED: "linux-aarch64", "qemu-arm": "linux-armv7l", "qemu-riscv64": "linux-riscv64"}
"""Programs of qemu-user, and the platform that each plays; Python runs on the first alone."""
PYTHON: Final = "python3"
ALLOWED: Final = f"ssh://user@host[:port], {LOCAL} or {EMULATED} (with --runtime slmc-run also qemu-arm, qemu-riscv64)"

_SSH_FAILED: Final = 255
_TARGET: Final = re.compile(
    r"ssh://(?:(?P<user>[^@/\s]+)@)?(?P<host>\[[^\]\s-][^\]\s]*\]|[^@:/\s\[\]]+)(?::(?P<port>\d+))?/?"
)
_CUT: Final = "the connection was cut: {said}; nothing was kept there, run the command again"
# What OpenSSH says on stderr, and what a user should make of it. The first that matches counts.
_SSH_SAYS: Final[tuple[tuple[str, str], ...]] = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one that is known here; find out why, then forget the old one (ssh-keygen -R HOST)",
    ),
    (
        "Host key verification failed",
        "its host key is not known here; connect once by hand ('{by_hand}'), compare the fingerprint and say yes",
    ),
    (
        "Permission denied",
        "permission denied: it accepts none of your keys; try '{by_hand}', then ssh-copy-id or ssh-add",
    ),
    ("Too many authentication failures", "it refused after too many keys; name the right one in ~/.ssh/config"),
    ("Could not resolve hostname", "no machine of this name is known; check the spelling or ~/.ssh/config"),
    ("Connection refused", "nothing listens there (connection refused); is sshd running, and is the port right?"),
    ("No route to host", "there is no way to this machine ({said}); is it switched on and in this network?"),
    ("Network is unreachable", "there is no way to this machine ({said}); is it switched on and in this network?"),
    ("not responding", _CUT),
    ("timed out", "it did not answer in time ({said}); is it switched on and in this network?"),
    ("Connection closed", _CUT),
    ("Connection reset", _CUT),
    ("closed by remote host", _CUT),
    ("Broken pipe", _CUT),
    ("Bad configuration option", "ssh does not understand its configuration: {said}"),
    ("no such identity", "ssh lacks a key: {said}"),
)


class Transport(Protocol):
    """One way to run a command line somewhere. It keeps no connection: `targets.remote.device.Device` does."""

    @property
    def name(self) -> str:
        """As the user wrote it."""

    @property
    def python(self) -> tuple[str, ...]:
        """The words that start Python there."""

    @property
    def emulator(self) -> tuple[str, ...]:
        """The words that start a program of another architecture; none where programs run by themselves."""

    @property
    def platform(self) -> str | None:
        """What the emulator plays; None where the machine says by itself what it is."""

    @property
    def speed_counts(self) -> bool:
        """Whether times measured there say anything about a machine; an emulator's do not."""

    def argv(self, command: str) -> list[str]:
        """What to start here so that the shell there runs `command`; stdin, stdout and stderr go through."""

    def explain(self, returncode: int, stderr: str) -> str | None:
        """Why the way itself failed, for the user; None if it held and the command ended by itself."""


@dataclass(frozen=True)
class Local:
    """This machine, in a process and a folder of its own."""

    python: tuple[str, ...] = (sys.executable,)
    name: str = LOCAL
    speed_counts: bool = True
    emulator: tuple[str, ...] = field(default=(), init=False)
    platform: str | None = field(default=None, init=False)

    def argv(self, command: str) -> list[str]:
        return ["/bin/sh", "-c", command]

    def explain(self, returncode: int, stderr: str) -> str | None:
        return None


@dataclass(frozen=True)
class Ssh:
    """A machine reached with the user's own ssh: its keys, configuration and jump hosts count, nothing is asked.

    ssh: the words that start it, with options of the user's own.
    """

    user: str | None
    host: str
    port: int | None
    python: tuple[str, ...] = (PYTHON,)
    ssh: tuple[str, ...] = ("ssh",)
    connect_timeout_s: int = 15
    speed_counts: bool = field(default=True, init=False)
    emulator: tuple[str, ...] = field(default=(), init=False)
    platform: str | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        return f"ssh://{self._where()}" + (f":{self.port}" if self.port else "")

    def argv(self, command: str) -> list[str]:
        options = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={self.connect_timeout_s}"]
        # A machine that falls silent is given up after 3 x 5 s.
        options += ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]
        return [*self.ssh, *options, *self._port(), "--", self._where(), command]

    def explain(self, returncode: int, stderr: str) -> str | None:
        if returncode != _SSH_FAILED:
            return None
        by_hand = shlex.join([*self.ssh, *self._port(), self._where()])
        said = last_line(stderr)
        if not stderr.strip():  # ssh says nothing when a signal ends the command
            return "our process there was killed; the system does this when memory runs out: free some, or close others"
        found = next((text for words, text in _SSH_SAYS if words.lower() in stderr.lower()), "ssh failed: {said}")
        return found.format(said=said, by_hand=by_hand)

    def _where(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host

    def _port(self) -> list[str]:
        return ["-p", str(self.port)] if self.port else []


@dataclass(frozen=True)
class Emulated:
    """This machine playing another architecture: right or wrong can be told there, fast or slow cannot.

    python: the words that start the other architecture's Python under the emulator.
    """

    python: tuple[str, ...]
    name: str = EMULATED
    speed_counts: bool = field(default=False, init=False)

    @property
    def emulator(self) -> tuple[str, ...]:
        return (shutil.which(self.name) or self.name,)

    @property
    def platform(self) -> str | None:
        return EMULATORS[self.name]

    def argv(self, command: str) -> list[str]:
        return ["/bin/sh", "-c", command]

    def explain(self, returncode: int, stderr: str) -> str | None:
        return None


EmulatedPython = Callable[[], tuple[str, ...]]
"""The words that start an emulated Python in a prepared system root; NotAvailable says what is missing."""


def parse_transport(
    text: str, *, python: str | None = None, ssh: str | None = None, emulated_python: EmulatedPython | None = None,
    needs_python: bool = True,
) -> Transport:  # fmt: skip
    """The transport that a user names.

    Args:
        python: the Python to use there, as words of a shell; the transport's own if None.
        ssh: the ssh program with options, as words of a shell.
        emulated_python: what `qemu-aarch64` uses.
        needs_python: whether Python is what runs there.

    Raises:
        SlmcError: not a place that is known.
        NotAvailable: there is no ssh program, or no emulator.
    """
    words = tuple(_words(python, "--remote-python")) if python else None
    if text == LOCAL:
        return Local(words or (sys.executable,))
    if text in EMULATORS and not needs_python:
        if shutil.which(text) is None:
            raise NotAvailable(f"{text} is not installed: it emulates {EMULATORS[text]}; install Debian's qemu-user")
        return Emulated((), text)
    if text == EMULATED:
        if emulated_python is None and words is None:
            raise NotAvailable(f"{EMULATED}: no emulated Python is prepared here; name one with --remote-python")
        return Emulated(words or (emulated_python() if emulated_python else ()))
    match = _TARGET.fullmatch(text)
    if match is None:
        raise SlmcError(f"--on {text!r}: not a place to run; allowed are {ALLOWED}")
    user, host, port = match["user"], match["host"].strip("[]"), match["port"]
    if host.startswith("-") or (user or "").startswith("-") or ":" in (user or ""):
        raise SlmcError(f"--on {text!r}: not a user and host; allowed are {ALLOWED} (keys, no passwords)")
    if port is not None and not 0 < int(port) < 2**16:
        raise SlmcError(f"--on {text!r}: port {port} does not exist; ports are 1 to 65535")
    program = tuple(_words(ssh, "--ssh")) if ssh else ("ssh",)
    if shutil.which(program[0]) is None:
        raise NotAvailable(f"{program[0]}: no such program; install OpenSSH's client (Debian: openssh-client)")
    return Ssh(user, host, int(port) if port else None, words or (PYTHON,), program)


def _words(text: str, option: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise SlmcError(f"{option} {text!r}: {error}; quote it as for a shell") from error
    if not words:
        raise SlmcError(f"{option} {text!r}: empty; name a program")
    return words


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "nothing was said")
