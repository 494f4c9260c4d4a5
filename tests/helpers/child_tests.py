"""Tests run once more by pytest in a process of its own, with another interpreter (tests/child_runtime)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_in_child(library: Path, interpreter: str, *options: str) -> str:
    """What pytest prints of tests whose ONNX Runtime runs in that interpreter with that library; all of them pass."""
    plugin = ["-p", "child_runtime", "--operators", str(library), "--interpreter", interpreter]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, "-q", "-p", "no:cacheprovider", *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests" / "child_runtime")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout
