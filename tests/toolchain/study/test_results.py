"""The file of results: remembered, and whole lines alone count."""

from __future__ import annotations

from pathlib import Path

from toolchain.study.results import Result, Results

ONE = Result("int4-g64", "gptq", ("gptq",), 55.0, 50.0, 0.1, 0.004, 1.9, 0.2, 0.7, 0.03, 1000, 4.25, 4.25, 4.0, 3.2)


def test_what_was_written_is_known_again(tmp_path: Path) -> None:
    file = tmp_path / "cells.jsonl"
    Results(file).add("a", ONE)
    assert Results(file).known("a") == ONE
    assert Results(file).known("b") is None


def test_a_torn_line_is_forgotten_and_spoils_nothing(tmp_path: Path) -> None:
    file = tmp_path / "cells.jsonl"
    Results(file).add("a", ONE)
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole + '{"key": "b", "result": {"form', encoding="utf-8")
    again = Results(file)
    assert again.known("b") is None
    again.add("c", ONE)
    assert Results(file).known("a") == Results(file).known("c") == ONE


def test_lines_of_another_kind_are_no_results(tmp_path: Path) -> None:
    file = tmp_path / "cells.jsonl"
    file.write_text('[1]\n{"key": "a"}\n{"key": "a", "result": {"stages": []}}\nnull\n', encoding="utf-8")
    assert Results(file).known("a") is None
