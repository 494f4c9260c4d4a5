"""Another machine for tests: an account behind sshd on loopback, and a way there that breaks."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
ROOT = os.geteuid() == 0


@dataclasses.dataclass(frozen=True)
class Account:
    """A user on the machine behind sshd: python has what a device needs and no torch; folder is for temporary files."""

    user: str
    python: str
    folder: Path


@dataclasses.dataclass(frozen=True)
class Server:
    """A running sshd: its port, and the user's files for ssh."""

    port: int
    account: Account
    files: Path

    def options(
        self, *, port: int | None = None, config: str = "config", folder: Path | None = None
    ) -> tuple[str, ...]:
        return (
            "--on", f"ssh://{self.account.user}@127.0.0.1:{port or self.port}",
            "--ssh", f"ssh -F {self.files / config}", "--remote-python", self.account.python,
            "--remote-dir", str(folder or self.account.folder),
        )  # fmt: skip

    def left(self) -> list[str]:
        """What visits have left behind, once those that are ending have had the time to."""
        for _ in range(100):
            if not (found := sorted(path.name for path in self.account.folder.iterdir())):
                break
            time.sleep(0.1)
        return found


def wait_for(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    pytest.fail("sshd does not answer")


@contextlib.contextmanager
def relay(port: int, cut_after: int) -> Iterator[int]:
    """A port that leads to another one until so many bytes were sent that way; then both connections are cut."""
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, sink: socket.socket, most: float) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while sent < most and (data := source.recv(4096)):
                sink.sendall(data)
                sent += len(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
                for pair in ((client, server, cut_after), (server, client, float("inf"))):
                    threading.Thread(target=carry, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()
