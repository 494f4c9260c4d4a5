"""Sparse and corrected formats from command line to artifact: searched, reported, and run in three ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.artifact.manifest import read_manifest
from exporters.artifact.native_library import library_path
from exporters.formats.catalog import family_of
from exporters.formats.families import SPARSE
from targets.device.session import open_session
from toolchain.search.plan import read_plan

QUICK = ("--effort", "quick", "--formats", "int4-g32", "--formats", "int8")
MIXED = {
    "att.key": "2:4/int4-g64", "att.value": "4:8x16/int4-g64", "att.receptance": "14:16x16/int2-g256",
    "att.output": "fp4-g16", "ffn.key": "1:8/int8+6:8/fp4-g16", "ffn.receptance": "1:4/int2-g256",
    "ffn.value": "6:8/int3-g64",
}  # fmt: skip


@pytest.fixture(scope="module")
def mixed(tiny_model: Path, slmc: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with a sparse format of another kind in every module of every block."""
    out = tmp_path_factory.mktemp("mixed") / "out"
    pins = [word for name, fmt in MIXED.items() for word in ("--layer", f"{name}={fmt}")]
    result = slmc("build", tiny_model, "-o", out, *QUICK, "--method", "gptq", *pins)
    assert result.exit_code == 0, result.stderr
    return out


def test_mixed_formats_run_alike_in_torch_and_with_and_without_our_library(mixed: Path) -> None:
    manifest = read_manifest(mixed)
    assert {e.format for e in manifest.recipe.values()} >= set(MIXED.values())
    parity = manifest.parity
    assert parity is not None and parity.top1_agreement > 0.99
    assert parity.perplexity_ratio == pytest.approx(1, abs=1e-3)
    tokens = np.arange(40, 80, dtype=np.int64)[None]
    ours, stock = (
        open_session(mixed / "model.onnx", manifest.io, native=library) for library in (library_path(), None)
    )
    one, other = ours.run(tokens).copy(), stock.run(tokens)
    assert np.median(np.abs(one - other)) < 1e-4  # a spike that flips may move a few
    assert (one.argmax(-1) == other.argmax(-1)).mean() > 0.95


CORRECTED = {"att.key": "diag+int4-g64", "ffn.receptance": "diag+int3-g32", "ffn.key": "lr4+int4-g32",
             "ffn.value": "lr2+uint4-g64"}  # fmt: skip


def test_corrections_run_alike_in_torch_and_with_and_without_our_library(
    tiny_model: Path, slmc: Callable[..., Any], tmp_path: Path
) -> None:
    pins = [word for name, fmt in CORRECTED.items() for word in ("--layer", f"{name}={fmt}")]
    result = slmc("build", tiny_model, "-o", tmp_path / "out", *QUICK, "--method", "gptq", "--tune", "2", *pins)
    assert result.exit_code == 0, result.stderr
    manifest = read_manifest(tmp_path / "out")
    assert {e.format for e in manifest.recipe.values()} >= set(CORRECTED.values())
    assert manifest.parity is not None and manifest.parity.perplexity_ratio == pytest.approx(1, abs=1e-3)
    tokens = np.arange(40, 80, dtype=np.int64)[None]
    ours, stock = (
        open_session(tmp_path / "out" / "model.onnx", manifest.io, native=library) for library in (library_path(), None)
    )
    assert (ours.run(tokens).argmax(-1) == stock.run(tokens).argmax(-1)).mean() > 0.95


def test_a_correction_that_a_layer_cannot_have(tiny_model: Path, fails: Callable[..., None], tmp_path: Path) -> None:
    args = ("build", tiny_model, "-o", tmp_path / "out", *QUICK, "--layer", "ffn.key=diag+int4-g64")
    fails(args, 2, "ffn.key", "diag+int4-g64", "cannot store", "square")
    assert not (tmp_path / "out").exists()


def test_inspect_knows_them(mixed: Path, slmc: Callable[..., Any], document: Callable[..., Any]) -> None:
    found = document("inspect", mixed)
    assert {e["format"] for e in found["recipe"].values()} >= set(MIXED.values())
    page = (mixed / "report.html").read_text()
    assert "4:8x16/int4-g64" in page and "1:8/int8+6:8/fp4-g16" in page


FORMATS = ("int4-g32", "int2-g32", "2:4/int4-g64", "4:8x16/int4-g64", "fp4-g16")
SEARCH = ("--effort", "quick", *(word for name in FORMATS for word in ("--formats", name)))


def test_a_search_among_them_says_what_every_family_gave(
    tiny_model: Path, slmc: Callable[..., Any], tmp_path: Path, document: Callable[..., Any]
) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "out"
    result = slmc("search", tiny_model, "-o", plan, *SEARCH)
    assert result.exit_code == 0, result.stderr
    found = read_plan(plan)
    assert [row.family for row in found.families] == [SPARSE[0], SPARSE[1], SPARSE[3]]
    for row in found.families:
        assert all(family_of(part.split(" x ")[1]) == row.family for part in row.formats.split(", "))
        used = [c for path, c in found.recipe.items() if family_of(c.format) == row.family]
        assert row.layers == len(used)
        assert row.predicted_ms is None
    assert found.screening is not None
    assert "pairs of a layer and a sparse format" in found.screening.text()
    assert slmc("export", tiny_model, "--plan", plan, "-o", out).exit_code == 0
    told = json.loads((out / "report.json").read_text())
    assert [row["family"] for row in told["families"]] == [row.family for row in found.families]
    assert told["screening"] == found.screening.text()
    for kind in ("md", "html"):
        text = slmc("report", out, "--format", kind).stdout
        assert "Sparse and dense formats compared" in text and "does not pay here" in text


def test_a_search_with_a_sparse_glob_ends_alike_twice(
    tiny_model: Path, slmc: Callable[..., Any], tmp_path: Path
) -> None:
    plans = [tmp_path / "one.json", tmp_path / "other.json"]
    for plan in plans:
        formats = ("--formats", "2:4*", "--formats", "int4-g32")
        assert slmc("search", tiny_model, "-o", plan, "--effort", "quick", *formats).exit_code == 0
    assert plans[0].read_bytes() == plans[1].read_bytes()


def test_sparse_formats_are_for_linear_layers(tiny_model: Path, fails: Callable[..., None], tmp_path: Path) -> None:
    out = tmp_path / "out"
    fails(("build", tiny_model, "-o", out, "--layer", "emb=2:4/int4-g64"), 2, "emb", "linear layers", "int4-g64")
    fails(("build", tiny_model, "-o", out, "--formats", "3:5*"), 2, "3:5*", "2:4/int4-g64")
