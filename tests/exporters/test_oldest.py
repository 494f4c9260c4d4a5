"""The function bodies of all operators on the oldest ONNX Runtime that pyproject.toml allows a device."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from child_tests import run_in_child

from exporters.artifact.native_library import library_path

ROOT = Path(__file__).parents[2]


def test_the_environment_is_the_oldest_that_is_claimed(oldest_python):
    code = "import importlib.metadata as m; print(*(m.version(n) for n in ('numpy', 'onnxruntime', 'tokenizers')))"
    said = subprocess.run([oldest_python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    claimed = re.search(
        r'"numpy>=([\d.]+)", "onnxruntime>=([\d.]+)", "tokenizers>=([\d.]+)"', (ROOT / "pyproject.toml").read_text()
    )
    assert claimed is not None
    for found, wanted in zip(said, claimed.groups(), strict=True):
        assert found.split(".")[: wanted.count(".") + 1] == wanted.split(".")


def test_all_bodies_on_the_oldest_runtime(oldest_python):
    printed = run_in_child(library_path(), str(oldest_python), "-k", "function", "tests/exporters/ops")
    passed = re.search(r"(\d+) passed", printed)
    assert passed is not None and int(passed[1]) > 900, printed[-500:]
