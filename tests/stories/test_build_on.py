"""A build for a board over ssh: probed once, measured there, every round told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ssh_server import Server

from toolchain.cli import boards, probing

QUICK = ("--effort", "quick", "--formats", "int4-g64", "--formats", "fp32", "--probe", "quick", "-q")


def test_a_board_decides(
    tiny_probe: None, slmc: Callable[..., Any], server: Server, tmp_path: Path, tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(boards, "CACHE", tmp_path / "cache")
    command = ("build", tiny_model, *QUICK, "--max-latency", "9s", "--json", *server.options())
    done = slmc(*command, "-o", tmp_path / "out", "--max-rss", "500MB")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    (told,) = document["rounds"]
    assert told["board"].startswith("ssh://") and told["met"] and told["predicted_ms"] > 0 < told["measured_ms"]
    assert [c["name"] for c in document["constraints"]] == ["max_latency", "max_rss"]
    assert document["measured"]["decode_ms"]["p50"] == told["measured_ms"] and server.left() == []
    (known,) = (tmp_path / "cache").iterdir()
    assert document["measured"]["target"] == known.stem
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["rounds"] == [told]

    monkeypatch.setattr(probing, "probe", None)  # it would fail: what the board costs is known
    missed = slmc(*command, "-o", tmp_path / "missed", "--max-latency", "0.000001ms")
    assert missed.exit_code == 4 and "closest artifact" in missed.stderr
    (told,) = json.loads(missed.stdout)["rounds"]
    assert not told["met"] and (tmp_path / "missed" / "manifest.json").is_file()


def test_boards_that_cannot_be_reached(fails: Callable[..., None], tiny_model: Path, tmp_path: Path) -> None:
    command = ("build", tiny_model, "-o", tmp_path / "out", "-q")
    fails((*command, "--on", "board"), 2, "--on 'board': not a place to run", "ssh://user@host")
    fails((*command, "--on", "ssh://a@b", "--ssh", "/no/ssh"), 5, "install OpenSSH's client")
    assert not (tmp_path / "out.slmc-work").exists()
