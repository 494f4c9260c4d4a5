"""The file of results: remembered, and whole lines alone count."""

from __future__ import annotations

from pathlib import Path

from toolchain.study.results import Result, read_results

ONE = Result("int4-g64", "gptq", ("gptq",), 55.0, 50.0, 0.1, 0.004, 1.9, 0.2, 0.7, 0.03, 1000, 4.25, 4.25, 4.0, 3.2)


def test_what_was_written_is_known_again(tmp_path: Path) -> None:
    file = tmp_path / "cells.jsonl"
    read_results(file).add("a", ONE)
    assert read_results(file).get("a") == ONE
    assert read_results(file).get("b") is None


def test_a_torn_line_is_forgotten_and_spoils_nothing(tmp_path: Path) -> None:
    file = tmp_path / "cells.jsonl"
    read_results(file).add("a", ONE)
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole + '{"key": "b", "result": {"form', encoding="utf-8")
    again = read_results(file)
    assert again.get("b") is None
    again.add("c", ONE)
    assert read_results(file).get("a") == read_results(file).get("c") == ONE


def test_lines_of_another_kind_are_no_results(tmp_path: Path) -> None:
    file = tmp_path / "cells.jsonl"
    file.write_text('[1]\n{"key": "a"}\n{"key": "a", "result": {"stages": []}}\nnull\n', encoding="utf-8")
    assert read_results(file).get("a") is None
