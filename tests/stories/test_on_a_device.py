"""Another machine as a user meets it: a real sshd, a fresh account without torch, and all that can go wrong."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ssh_server import ROOT, Account, Server, relay

Fails = Callable[..., None]
Document = Callable[..., Any]


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
    only_here = {"kl_mean", "slmc_run_top1", "slmc_run_perplexity_ratio"}
    assert here.keys() - there.keys() == only_here, "what is compared logit by logit stays here, and slmc-run"
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
    fails(
        ("bench", artifact, "-q", *options),
        5,
        "no compiled operators for linux-i686",
        "linux-x86_64",
        "--runtime stock",
    )
    rows = document("bench", artifact, "-p", "0", "-n", "4", "-r", "1", "--no-native", *options)
    assert json.loads(json.dumps(rows))[0]["native"] is False
