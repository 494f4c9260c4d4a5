"""slmc bench on several artifacts and with prompt and generation in one test, in the formats that scripts read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Slmc = Callable[..., Result]


def test_two_artifacts_in_turn(artifact: Path, document: Callable[..., list[dict[str, object]]]) -> None:
    rows = document("bench", artifact, "-m", artifact, "-p", "0", "-n", "8", "-r", "3")
    assert len(rows) == 2 and all(len(row["samples_ns"]) == 3 for row in rows)  # type: ignore[arg-type]
    first, second = rows
    assert (first["cpu_vs_first"], first["cpu_vs_first_low"]) == (1.0, 1.0)
    assert second["cpu_vs_first_low"] <= second["cpu_vs_first"] <= second["cpu_vs_first_high"]  # type: ignore[operator]
    assert 0 < second["bw_fraction"] < 100 and second["rss_peak_mib"] > second["rss_baseline_mib"]  # type: ignore[operator]


def test_prompt_and_generation_in_one_test(artifact: Path, slmc: Slmc) -> None:
    test = ("bench", artifact, "-p", "0", "-n", "0", "-pg", "16,8", "-r", "1")
    deep = slmc(*test, "-d", "0,32").stdout
    assert "| pp16+tg8 |" in deep and "| pp16+tg8 @ d32 |" in deep
    lines = slmc(*test, "-o", "sql").stdout
    with sqlite3.connect(":memory:") as base:
        base.executescript(lines)
        base.row_factory = sqlite3.Row
        (row,) = base.execute("SELECT * FROM llama_bench").fetchall()
    assert (row["n_prompt"], row["n_gen"], row["model_filename"]) == (16, 8, artifact.name)
    assert abs(row["avg_ts"] - 24e9 / row["avg_ns"]) < 1e-3 * row["avg_ts"]


def test_what_cannot_be_measured(artifact: Path, fails: Callable[..., None]) -> None:
    fails(("bench",), 2, "no artifact is given", "slmc bench OUT")
    fails(("bench", artifact, "-d", "-1"), 2, "-d '-1'", "from 0")
    fails(("bench", artifact, "-pg", "16"), 2, "-pg '16'", "as 512,128")
    fails(("bench", artifact, "-pg", "16,0"), 2, "-pg '16,0'", "from 1")
    fails(("bench", artifact, "-m", "nowhere"), 2, "nowhere")
