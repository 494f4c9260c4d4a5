"""A board that is another CPU: an sshd on loopback whose sessions share one core and a part of its time.

python benchmarks/limited_board.py --core 1 --share 0.25 slmc build MODEL -o out --max-latency 20ms

starts it, runs the command with the options that name it behind, and ends it. Root, OpenSSH's server and control groups
of version 1 are needed. The group has a large weight: it gets its part of the core beside busy neighbours too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

GROUPS = Path("/sys/fs/cgroup")
NAME = "slmc-board"
QUOTA_US = 1000
"""The shortest that the kernel gives at once: a token of some milliseconds sees several periods."""

WEIGHT = 200_000
"""cpu.shares of the group; that of any other process is 1024."""


@contextlib.contextmanager
def limited(core: int, share: float) -> Iterator[tuple[Path, Path]]:
    """Groups for the processes of the board; their folders."""
    cpu, cpuset = (GROUPS / kind / NAME for kind in ("cpu", "cpuset"))
    for folder in (cpu, cpuset):
        folder.mkdir(exist_ok=True)
    settings = {
        cpu / "cpu.cfs_period_us": round(QUOTA_US / share), cpu / "cpu.cfs_quota_us": QUOTA_US,
        cpu / "cpu.shares": WEIGHT, cpuset / "cpuset.cpus": core,
        cpuset / "cpuset.mems": (GROUPS / "cpuset" / "cpuset.mems").read_text().strip(),
    }  # fmt: skip
    for file, value in settings.items():
        file.write_text(str(value))
    try:
        yield cpu, cpuset
    finally:
        for folder in (cpu, cpuset):
            with contextlib.suppress(OSError):  # a session that has not ended yet keeps it, which does no harm
                folder.rmdir()


@contextlib.contextmanager
def served(groups: tuple[Path, Path], files: Path) -> Iterator[int]:
    """An sshd in the groups, as all its sessions are then; its port."""
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", files / name], check=True)
    shutil.copy(files / "key.pub", files / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (files / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {files}/host\nAuthorizedKeysFile {files}/authorized\n"
        f"PidFile {files}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
    )
    (files / "known").write_text(f"board {(files / 'host.pub').read_text()}")
    (files / "config").write_text(
        f"IdentityFile {files}/key\nIdentitiesOnly yes\nUserKnownHostsFile {files}/known\nHostKeyAlias board\n"
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)

    def join() -> None:
        for group in groups:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "/usr/sbin/sshd"
    process = subprocess.Popen(
        [sshd, "-D", "-e", "-f", files / "sshd_config"], preexec_fn=join, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--core", default=1, help="The only core that there is.")
@click.option("--share", default=0.25, help="How much of it.")
@click.option("--python", default=sys.executable, help="There: with numpy, onnxruntime and tokenizers.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def main(core: int, share: float, python: str, command: tuple[str, ...]) -> None:
    with contextlib.ExitStack() as stack:
        files = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slmc-board-")))
        (files / "there").mkdir()
        port = stack.enter_context(served(stack.enter_context(limited(core, share)), files))
        place = (
            "--on", f"ssh://root@127.0.0.1:{port}", "--ssh", f"ssh -F {files}/config", "--remote-python", python,
            "--remote-dir", str(files / "there"),
        )  # fmt: skip
        code = subprocess.run([*command, *place], check=False).returncode
    sys.exit(code)


if __name__ == "__main__":
    main()
