"""Places as users write them, the commands they become, and what ssh's complaints mean."""

from __future__ import annotations

import re

import pytest

from exporters.artifact.errors import NotAvailable, SlmcError
from targets.remote.transport import Emulated, Local, Ssh, parse_transport

PLACES = {
    "ssh://board": ("board", []),
    "ssh://pi@board": ("pi@board", []),
    "ssh://pi@board:2222": ("pi@board", ["-p", "2222"]),
    "ssh://pi@[fe80::1%eth0]:22": ("pi@fe80::1%eth0", ["-p", "22"]),
    "ssh://board/": ("board", []),
}


@pytest.fixture(autouse=True)
def no_ssh_needed(monkeypatch):
    monkeypatch.setattr("targets.remote.transport.shutil.which", lambda name: None if name == "nossh" else name)


@pytest.mark.parametrize("text", PLACES)
def test_ssh(text):
    where, port = PLACES[text]
    argv = parse_transport(text).argv("true")
    assert argv[0] == "ssh" and argv[-3:] == ["--", where, "true"] and argv[-3 - len(port) : -3] == port
    assert "BatchMode=yes" in argv and "ServerAliveInterval=5" in argv, "it must ask nothing, and notice silence"


def test_options():
    transport = parse_transport("ssh://board", python="/opt/a b/python", ssh="ssh -F 'my config'")
    assert transport.python == ("/opt/a", "b/python") and transport.argv("x")[:3] == ["ssh", "-F", "my config"]
    assert parse_transport("ssh://board").python == ("python3",)
    assert parse_transport("local").argv("x") == ["/bin/sh", "-c", "x"]


def test_emulated():
    transport = parse_transport("qemu-aarch64", emulated_python=lambda: ("/sysroot/python",))
    assert isinstance(transport, Emulated) and transport.python == ("/sysroot/python",) and not transport.speed_counts
    assert parse_transport("qemu-aarch64", python="/mine").python == ("/mine",)
    with pytest.raises(NotAvailable, match=r"qemu-aarch64: .*--remote-python"):
        parse_transport("qemu-aarch64")
    assert Local().speed_counts and Ssh(None, "board", None).speed_counts


@pytest.mark.parametrize(
    "text",
    ["", "board", "ssh://", "ssh://a b", "ssh://pi:secret@board", "ssh://board:0", "ssh://board:99999", "ssh://board/x",
     "ssh://-oProxyCommand=evil", "ssh://-l@board", "http://board", "ssh://board:22:33", "LOCAL"],
)  # fmt: skip
def test_places_that_are_none(text):
    with pytest.raises(SlmcError, match=r"--on .*(allowed are ssh://user@host\[:port\], local or qemu|ports are 1 to)"):
        parse_transport(text)


def test_programs_that_are_none():
    with pytest.raises(NotAvailable, match="nossh: no such program"):
        parse_transport("ssh://board", ssh="nossh")
    with pytest.raises(SlmcError, match=r"--remote-python .*quote it"):
        parse_transport("local", python="'")
    with pytest.raises(SlmcError, match="--ssh ' ': empty"):
        parse_transport("ssh://board", ssh=" ")


SAID = {
    "@@@@\nREMOTE HOST IDENTIFICATION HAS CHANGED!\nHost key verification failed.": "not the one that is known",
    "No ED25519 host key is known for x.\nHost key verification failed.": r"not known here.*ssh -p 22 pi@board",
    "pi@board: Permission denied (publickey).": "permission denied",
    "ssh: Could not resolve hostname board: Name or service not known": "no machine of this name",
    "ssh: connect to host board port 22: Connection refused": "nothing listens",
    "ssh: connect to host board port 22: No route to host": "no way to this machine",
    "ssh: connect to host board port 22: Connection timed out": "did not answer in time",
    "Timeout, server board not responding.": "the connection was cut",
    "Connection to board closed by remote host.": "the connection was cut",
    "client_loop: send disconnect: Broken pipe": "the connection was cut",
    "something new": "ssh failed: something new",
    "": "our process there was killed",
}


@pytest.mark.parametrize("stderr", SAID)
def test_what_ssh_says(stderr):
    why = Ssh("pi", "board", 22).explain(255, stderr)
    assert why is not None and re.search(SAID[stderr], why) and "\n" not in why


@pytest.mark.parametrize("transport", [Ssh("pi", "board", 22), Local(), Emulated(("python",))])
def test_other_endings(transport):
    assert transport.explain(127, "sh: 1: python3: not found") is None, "what is not found there is not the way's"
    assert transport.explain(1, "Permission denied") is None, "what the command says is not the way's"
    assert transport.explain(137, "") is None
