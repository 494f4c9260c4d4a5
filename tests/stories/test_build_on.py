"""A build for a board over ssh: probed once, measured there, every round told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ssh_server import Server

from targets.cpus.spec import read_cpu
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


def test_a_board_without_python_decides(
    tiny_probe: None, slmc: Callable[..., Any], bare_server: Server, tmp_path: Path, tiny_model: Path,
    fails: Callable[..., None], document: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """slmc-run is probed and measured there; the artifact says so, and keeps its promise of memory there."""
    monkeypatch.setattr(boards, "CACHE", tmp_path / "cache")
    out, run = tmp_path / "out", ("--runtime", "slmc-run")
    command = ("build", tiny_model, *QUICK, "--max-latency", "9s", "--max-rss", "50MB", "-o", out)
    fails((*command, *bare_server.options()), 5, "no /nowhere/python3 there", "--runtime slmc-run")
    done = slmc(*command, *run, "--json", *bare_server.options())
    assert done.exit_code == 0, done.stderr
    built = json.loads(done.stdout)
    (told,), measured = built["rounds"], built["measured"]
    assert told["met"] and told["predicted_ms"] > 0 < told["measured_ms"] and bare_server.left() == []
    assert (measured["ort_version"], measured["native"]) == ("", False) and 0 < measured["rss_baseline_bytes"] < 8e6
    (known,) = (tmp_path / "cache").iterdir()
    assert measured["target"] == known.stem and read_cpu(known).of_slmc_run
    found = document("validate", out, "--reference", tiny_model, *run, *bare_server.options())
    memory = next(promise for promise in found["promises"] if promise["name"] == "memory")
    assert found["runtime"] == "slmc-run" and memory["status"] == "kept" and bare_server.left() == []


def test_boards_that_cannot_be_reached(fails: Callable[..., None], tiny_model: Path, tmp_path: Path) -> None:
    command = ("build", tiny_model, "-o", tmp_path / "out", "-q")
    fails((*command, "--on", "board"), 2, "--on 'board': not a place to run", "ssh://user@host")
    fails((*command, "--on", "ssh://a@b", "--ssh", "/no/ssh"), 5, "install OpenSSH's client")
    assert not (tmp_path / "out.slmc-work").exists()
