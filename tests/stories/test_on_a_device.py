"""Another machine as a user meets it: a real sshd, a fresh account without torch, and all that can go wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import pytest
import tokenizers

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None, reason="no OpenSSH here (Debian: openssh-server, openssh-client)"
)
ROOT = os.geteuid() == 0

Fails = Callable[..., None]
Document = Callable[..., Any]


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


@pytest.fixture(scope="session")
def account() -> Iterator[Account]:
    """A new user of this machine with numpy, onnxruntime and tokenizers alone; the present one if we are not root."""
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


def killed_when_seen(user: str, words: str, number: signal.Signals) -> threading.Thread:
    """Sends a signal to the first process of a user whose command line begins with the words."""

    def hunt() -> None:
        for _ in range(3000):
            for folder in Path("/proc").iterdir():
                with contextlib.suppress(OSError, ProcessLookupError):
                    if folder.name.isdecimal() and folder.owner() == user:
                        line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                        if line.startswith(words):
                            os.kill(int(folder.name), number)
                            return
            time.sleep(0.01)

    thread = threading.Thread(target=hunt, daemon=True)
    thread.start()
    return thread


@pytest.mark.skipif(not ROOT, reason="only root can make an account without torch")
def test_the_account_has_no_torch(account: Account) -> None:
    code = "import importlib.util as u; print([n for n in ('torch', 'onnx', 'toolchain', 'targets') if u.find_spec(n)])"
    done = subprocess.run([account.python, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == "[]"


def test_validate_there_says_the_same_as_here(
    artifact: Path, tiny_model: Path, server: Server, document: Document
) -> None:
    here = document("validate", artifact, "--reference", tiny_model)
    there = document("validate", artifact, "--reference", tiny_model, *server.options())
    assert there.pop("on") == f"ssh://{server.account.user}@127.0.0.1:{server.port}"
    quality = ("dataset", "tokens", "perplexity", "bits_per_byte", "token_by_token_top1", "stock_runtime_top1",
               "stock_runtime_perplexity_ratio", "reference_perplexity", "relative_drop", "top1_agreement")  # fmt: skip
    assert {key: there[key] for key in quality} == {key: here[key] for key in quality}
    assert there["native"] and there["decode_tps"] > 0 and there["rss_peak_bytes"] > there["rss_baseline_bytes"] > 0
    assert here.keys() - there.keys() == {"kl_mean"}, "what is compared logit by logit stays here"
    assert server.left() == []


def test_bench_there(artifact: Path, server: Server, document: Document) -> None:
    rows = document("bench", artifact, "-p", "16", "-n", "8", "-r", "2", *server.options())
    assert [(r["n_prompt"], r["n_gen"]) for r in rows] == [(16, 0), (0, 8)] and all(r["avg_ts"] > 0 for r in rows)
    assert server.left() == []


def test_the_connection_is_cut_while_files_are_sent(
    artifact: Path, server: Server, fails: Fails, document: Document
) -> None:
    with relay(server.port, cut_after=60_000) as port:
        fails(("bench", artifact, "-q", *server.options(port=port)), 5, f"127.0.0.1:{port}: the connection was cut")
    assert server.left() == []
    assert document("bench", artifact, "-p", "0", "-n", "4", "-r", "1", *server.options())


def test_the_connection_is_cut_while_it_measures(artifact: Path, server: Server, fails: Fails) -> None:
    long = ("bench", artifact, "-p", "0", "-n", "1000000", "-r", "1", "-q")
    if not ROOT:
        pytest.skip("only root can tell sshd's process for the session from others of the same user")
    hunter = killed_when_seen(server.account.user, f"sshd: {server.account.user}@notty", signal.SIGKILL)
    fails((*long, *server.options()), 5, "the connection was cut")
    hunter.join()
    assert server.left() == []
    assert not any(b"targets.device.worker" in line for line in command_lines(server.account.user))


def command_lines(user: str) -> list[bytes]:
    lines = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdecimal() and folder.owner() == user:
                lines.append((folder / "cmdline").read_bytes())
    return lines


@pytest.mark.skipif(not ROOT, reason="only root can kill another user's process")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("{python} -m targets.device.worker", "the measured process was killed by SIGKILL"),
        ("{python} -c import sys", "our process there was killed by SIGKILL"),
        ("sh -c", "our process there was killed"),
    ],
)
def test_a_process_there_is_killed(artifact: Path, server: Server, fails: Fails, words: str, said: str) -> None:
    """As the system does when memory runs out: the measured process, ours that would have cleaned up, or its shell."""
    hunter = killed_when_seen(server.account.user, words.format(python=server.account.python), signal.SIGKILL)
    fails(("bench", artifact, "-p", "0", "-n", "1000000", "-r", "1", "-q", *server.options()), 5, said)
    hunter.join()
    assert server.left() == []


@pytest.mark.skipif(not ROOT, reason="only root can mount a small file system")
def test_the_disk_there_is_full(artifact: Path, server: Server, fails: Fails) -> None:
    small = server.account.folder.parent / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=1777", "tmpfs", small], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        fails(("validate", artifact, "-q", *server.options(folder=small)), 5, "free", "are needed", "--remote-dir")
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_ways_that_do_not_lead_there(artifact: Path, server: Server, fails: Fails, tmp_path: Path) -> None:
    """Each is one line that names the place, exit code 5."""

    def refused(options: tuple[str, ...], *words: str) -> None:
        fails(("validate", artifact, "-q", *options), 5, f"ssh://{server.account.user}@127.0.0.1", *words)

    refused(server.options(config="no-key"), "permission denied", "ssh-copy-id")
    refused(server.options(config="new"), "host key is not known here", "fingerprint")
    refused(server.options(folder=tmp_path / "nowhere"), "nowhere", "no folder", "--remote-dir")
    options = server.options()
    refused((*options, "--remote-python", "/opt/no/python3"), "no /opt/no/python3 there", "--remote-python")
    refused((*options, "--remote-python", f"{options[5]} -I -S"), "lacks numpy, onnxruntime, tokenizers", "pip install")
    refused((*options, "--ssh", "ssh -F /nowhere/config"), "/nowhere/config")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused(server.options(port=closed.getsockname()[1]), "connection refused")
    assert server.left() == []


def test_a_machine_that_takes_the_call_and_says_nothing(artifact: Path, server: Server, fails: Fails) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        options = (*server.options(port=port), "--ssh", f"ssh -o ConnectTimeout=1 -F {server.files / 'config'}")
        fails(("validate", artifact, "-q", *options), 5, f":{port}: it did not answer in time")


def test_a_changed_host_key(artifact: Path, server: Server, fails: Fails, tmp_path: Path) -> None:
    known, config = tmp_path / "known", tmp_path / "config"
    known.write_text(f"device {(server.files / 'stranger.pub').read_text()}")
    config.write_text((server.files / "config").read_text().replace(str(server.files / "known"), str(known)))
    options = (*server.options(), "--ssh", f"ssh -F {config}")
    fails(("validate", artifact, "-q", *options), 5, "not the one that is known here", "ssh-keygen -R")


@pytest.mark.skipif(shutil.which("setarch") is None, reason="no setarch here to call this machine another")
def test_another_architecture(artifact: Path, server: Server, fails: Fails, document: Document) -> None:
    python = shlex.join(["setarch", "i686", server.account.python])
    options = (*server.options(), "--remote-python", python)
    fails(("bench", artifact, "-q", *options), 5, "no compiled operators for linux-i686", "linux-x86_64", "--no-native")
    rows = document("bench", artifact, "-p", "0", "-n", "4", "-r", "1", "--no-native", *options)
    assert json.loads(json.dumps(rows))[0]["native"] is False
