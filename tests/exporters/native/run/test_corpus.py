"""Altered files that are kept: slmc-run serves or refuses each as it did, in one line."""

from __future__ import annotations

import subprocess
from pathlib import Path

from driven import program

CORPUS = Path(__file__).parent / "corpus"


def test_kept_files_are_served_or_refused() -> None:
    files = sorted(CORPUS.glob("*-*"))
    command = [program("slmc-run-fuzz"), CORPUS / "whole", "--replay", *files]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    said = ["served" if line == "served" else "refused" for line in result.stdout.splitlines()]
    assert said == [path.name.split("-")[0] for path in files]
    assert {"served", "refused"} == set(said)
