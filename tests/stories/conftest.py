"""A real sshd on loopback and a fresh account without torch, for all stories that need another machine."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy
import onnxruntime
import pytest
import tokenizers
from chatty import chatty, copy, run  # noqa: F401 - fixtures
from ssh_server import ROOT, SSHD, Account, Server, wait_for

from targets.cpus import probe
from targets.cpus.plan import ProbePlan


@pytest.fixture(scope="session")
def account() -> Iterator[Account]:
    """A new user of this machine with numpy, onnxruntime and tokenizers alone; the present one if we are not root."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("no OpenSSH here (Debian: openssh-server, openssh-client)")
    home = Path(tempfile.mkdtemp(prefix="slmc-home-", dir="/tmp"))
    (home / "tmp").mkdir()
    if not ROOT:
        yield Account(getpass.getuser(), sys.executable, home / "tmp")
        shutil.rmtree(home)
        return
    name = f"slmc{uuid.uuid4().hex[:8]}"
    subprocess.run(["useradd", "--no-create-home", "--home-dir", home, "--shell", "/bin/sh", name], check=True)
    try:
        subprocess.run(["usermod", "--password", "*", name], check=True)
        subprocess.run([public_python(name), "-m", "venv", "--without-pip", home / "venv"], check=True)
        (site,) = (home / "venv" / "lib").glob("python3*/site-packages")
        for package in (numpy, onnxruntime, tokenizers):
            installed = Path(str(package.__file__)).parent
            for part in installed.parent.glob(f"{installed.name}*"):
                (shutil.copytree if part.is_dir() else shutil.copy)(part, site / part.name)
        home.chmod(0o755)
        shutil.chown(home / "tmp", name)
        yield Account(name, str(home / "venv" / "bin" / "python"), home / "tmp")
    finally:
        subprocess.run(["userdel", name], check=False)
        shutil.rmtree(home)


def public_python(user: str) -> Path:
    """A Python of this version that a user may run; ours may lie in a folder that is nobody else's."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for folder in (Path(sys.base_prefix) / "bin", Path("/usr/local/bin"), Path("/usr/bin")):
        with contextlib.suppress(OSError):
            if subprocess.run([folder / name, "-c", ""], user=user, cwd="/", check=False).returncode == 0:
                return folder / name
    pytest.skip(f"no {name} here that another user may run")


@pytest.fixture(scope="session")
def server(account: Account) -> Iterator[Server]:
    """A real sshd on loopback with a host key of its own, that knows one key of one account."""
    with running(account) as found:
        yield found


@pytest.fixture(scope="session")
def bare_server(account: Account) -> Iterator[Server]:
    """The same for a machine with a shell and five tools: no Python is on its path, and none is named."""
    tools = Path(tempfile.mkdtemp(prefix="slmc-tools-", dir="/tmp"))
    tools.chmod(0o755)
    for tool in ("mkdir", "dd", "chmod", "rm", "uname"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    with running(dataclasses.replace(account, python="/nowhere/python3"), f"SetEnv PATH={tools}\n") as found:
        yield found
    shutil.rmtree(tools)


@contextlib.contextmanager
def running(account: Account, more: str = "") -> Iterator[Server]:
    """Such an sshd; more: lines of its configuration."""
    files = Path(tempfile.mkdtemp(prefix="slmc-sshd-", dir="/tmp"))
    for name in ("host", "key", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", files / name], check=True)
    shutil.copy(files / "key.pub", files / "authorized")
    files.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (files / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {files}/host\nAuthorizedKeysFile {files}/authorized\n"
        f"PidFile {files}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        + more
    )
    (files / "known").write_text(f"device {(files / 'host.pub').read_text()}")
    (files / "nobody").touch()
    for config, key, known in (("config", "key", "known"), ("no-key", "stranger", "known"), ("new", "key", "nobody")):
        (files / config).write_text(
            f"IdentityFile {files}/{key}\nIdentitiesOnly yes\nUserKnownHostsFile {files}/{known}\nHostKeyAlias device\n"
            "GlobalKnownHostsFile /dev/null\n"
        )
    made = ROOT and not Path("/run/sshd").exists()
    if made:
        Path("/run/sshd").mkdir(mode=0o755)
    process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", files / "sshd_config"], stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield Server(port, account, files)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(files)
        if made:
            Path("/run/sshd").rmdir()


@pytest.fixture
def tiny_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe of seconds: one format, small matrices, one turn."""
    plan = ProbePlan(("int4-g64", "fp32"), ((64, 64), (128, 64)), (64, 256), (1,), 0.002)
    monkeypatch.setattr(probe, "plan_for", lambda cores, quick: plan)
    monkeypatch.setattr(probe, "working_sets", lambda cpu, free, quick: (("L2", 1 << 14), ("memory", 1 << 16)))
    monkeypatch.setattr(probe, "ROUNDS", 1)
    monkeypatch.setattr(probe, "BATCH_TASKS", 16)
