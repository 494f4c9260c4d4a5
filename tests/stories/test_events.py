"""An event layout from the command line to the artifact: pinned, chosen by the build, refused where it cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import toolchain.search.layout
from exporters.artifact.manifest import read_manifest
from exporters.graph_nodes import read_workload

QUICK = ("--effort", "quick", "--formats", "int4-g32")
VALUES = {"blocks.0.ffn.value", "blocks.1.ffn.value"}


def layouts(folder: Path) -> set[str]:
    """Layers that the artifact stores input-major; the graph must have an operator for each."""
    manifest = read_manifest(folder)
    found = {path for path, entry in manifest.recipe.items() if entry.format.startswith("event/")}
    nodes = [node.operator for node in read_workload(folder / "model.onnx").nodes]
    assert nodes.count("EventLinear") == len(found)
    return found


def test_pinned(tiny_model: Path, slmc: Callable[..., Any], tmp_path: Path) -> None:
    """The artifact agrees with torch, and runs without our library too."""
    out = tmp_path / "out"
    result = slmc("build", tiny_model, "-o", out, *QUICK, "--layer", r"ffn\.value=event/int4-g32")
    assert result.exit_code == 0, result.stderr
    assert layouts(out) == VALUES
    parity = read_manifest(out).parity
    assert parity is not None and parity.top1_agreement > 0.99
    assert slmc("validate", out).exit_code == 0


def test_chosen_by_the_build(
    tiny_model: Path, slmc: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a lower bar that the tiny model reaches; the plan carries the layout to an export."""
    monkeypatch.setattr(toolchain.search.layout, "LEAST_ZEROS", 0.25)
    plan, out = tmp_path / "plan.json", tmp_path / "out"
    assert slmc("search", tiny_model, "-o", plan, *QUICK).exit_code == 0
    recipe = json.loads(plan.read_text())["recipe"]
    assert {path for path, choice in recipe.items() if choice["format"] == "event/int4-g32"} == VALUES
    assert slmc("export", tiny_model, "--plan", plan, "-o", out).exit_code == 0
    assert layouts(out) == VALUES


def test_dense_by_wish(
    tiny_model: Path, slmc: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain.search.layout, "LEAST_ZEROS", 0.25)
    plan = tmp_path / "plan.json"
    assert slmc("search", tiny_model, "-o", plan, *QUICK, "--layout", "dense").exit_code == 0
    assert "event/" not in plan.read_text()


def test_refused(tiny_model: Path, fails: Callable[..., None], tmp_path: Path) -> None:
    out = tmp_path / "out"
    fails(("build", tiny_model, "-o", out, "--layer", "emb=event/int4-g32"), 2, "emb", "linear layers", "int4-g32")
    fails(("build", tiny_model, "-o", out, "--layout", "sparse"), 2, "layout", "sparse")
