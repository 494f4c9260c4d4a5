"""The sample of a family in a package of its own: trained for a moment, found by its entry point, built, and run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.model.families import all_families

pytest.importorskip("snntorch", reason="snnTorch is not installed (pip install snntorch)")
SAMPLE = Path(__file__).parents[2] / "samples" / "own-family"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The sample on the path, with the entry point that pip would write."""
    info = tmp_path / "site" / "slmc_own_family-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slmc-own-family\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[slmc.families]\nown = own_family:OwnFamily\n")
    monkeypatch.syspath_prepend(str(SAMPLE))
    monkeypatch.syspath_prepend(str(info.parent))
    all_families.cache_clear()
    yield
    all_families.cache_clear()


def test_from_training_to_text(
    installed: None, tmp_path: Path, slmc: Callable[..., Any], document: Callable[..., Any]
) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    text = SHIPPED_TEXTS / "calibration.txt"
    subprocess.run([sys.executable, SAMPLE / "train.py", model, "--text", text, "--steps", "2"], check=True)
    found = document("inspect", model, "--activity")
    spiking = {path for path, seen in found["activity"].items() if seen["spikes"]}
    assert found["family"] == "own-spiking-transformer"
    assert spiking == {f"blocks.{i}.{name}" for i in range(2) for name in ("out", "down")}
    built = slmc("build", model, "-o", out, "--effort", "quick", "--formats", "int8", "--max-time", "3m")
    assert built.exit_code == 0, built.stderr
    proved = document("validate", out, "--reference", model)
    assert proved["token_by_token_top1"] == 1.0
    assert len(document("generate", out, "-p", "The old bridge", "-n", "8", "--temp", "0")["text"]) > len(
        "The old bridge"
    )
