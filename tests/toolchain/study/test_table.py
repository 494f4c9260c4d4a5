"""Tables and goals from results that are made up, so that every figure is known."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree as ET

import pytest

from exporters.artifact.errors import SlmcError
from exporters.formats.catalog import format_named
from toolchain.compress.catalog import METHODS, method_named, method_takes
from toolchain.compress.ordered import ORDERED
from toolchain.study.cells import CELLS, DISTIL, GOALS, OURS, chosen
from toolchain.study.picture import draw
from toolchain.study.results import Result
from toolchain.study.table import COLUMNS, cells, equal_bytes, goal_outcomes, render

BASE = Result("2:4/fp16", "sparsegpt", ("sparsegpt",), 55.0, 50.0, 0.1, 0.004, 1.9, 0.2, 0.7, 0.03, 1000, 8.75, 8.65,
              2.0, 3.21)  # fmt: skip


def result(fmt: str, method: str, drop: float, size: int = 1000) -> Result:
    return dataclasses.replace(
        BASE, format=fmt, method=method, relative_drop=drop, bytes=size, perplexity=50 * (1 + drop)
    )


def test_bars_by_hand() -> None:
    """SparseGPT loses 10 %: ours may lose 5 %. SDQ may lose 1 %, whatever others lose."""
    found = goal_outcomes(
        [BASE, result("2:4/fp16", "ours", 0.049), result("int2-g64", "gptq", 0.2), result("int2-g64", "ours", 0.11),
         result("1:8/int8+6:8/fp4-g16", "ours", 0.0099), result("4:8/fp16", "ours", 0.01)]
    )  # fmt: skip
    assert [(v.format, round(v.allowed, 6), v.met) for v in found] == [
        ("2:4/fp16", 0.05, True), ("int2-g64", 0.1, False), ("1:8/int8+6:8/fp4-g16", 0.01, True)
    ]  # fmt: skip
    text = render([BASE, result("2:4/fp16", "ours", 0.2)], "a study")
    assert "| 2:4/fp16 | ours | " in text
    assert "NO |" in text


def test_sparse_beside_the_best_dense_of_no_more_bytes() -> None:
    """Untuned beside untuned; 1 % of bytes is no difference, 2 % is one."""
    dense = [result("int3-g64", "gptq", 0.03, 990), result("int3-g128", "gptq", 0.05, 900),
             result("int4-g64", "gptq", 0.01, 1020), result("int3-g64", "ours", 0.001, 990)]  # fmt: skip
    pairs = equal_bytes([*dense, result("2:4/int4-g64", "sparsegpt", 0.12), result("2:4/int4-g64", "ours", 0.06), BASE])
    assert [(p.sparse.method, p.dense.format, p.dense.method) for p in pairs] == [
        ("sparsegpt", "int3-g64", "gptq"), ("ours", "int3-g64", "ours")
    ]  # fmt: skip


def test_a_row_has_every_column() -> None:
    row = dict(zip(COLUMNS, cells(BASE), strict=True))
    assert (row["perplexity"], row["drop"], row["bytes"], row["throughput"], row["seconds"]) == (
        "55.00", "+10.0 %", "1000", "2.00x", "3.2"
    )  # fmt: skip


def test_the_picture_has_a_mark_for_every_cell_and_for_every_method() -> None:
    picture = ET.fromstring(
        draw([BASE, result("2:4/fp16", "ours", 7.0), result("int3-g64", "ours", 0.02)], "a <study>")
    )
    marks = [e for e in picture.iter() if e.get("class") == "mark"]
    assert len(marks) == 3 + 2
    assert picture.get("aria-label") == "a <study>"


def test_every_cell_can_be_carried_out() -> None:
    names = {o.name for o in ORDERED}
    assert len(set(CELLS)) == len({c.name for c in CELLS}) == len(CELLS)
    for cell in CELLS:
        first = cell.stages[0]
        assert first in names or first == method_named(first).name
        if not cell.format.endswith("/fp16"):
            assert method_takes(first, format_named(cell.format))
        assert cell.tuned == (cell.method == "ours") == (cell.stages[-1] == DISTIL)
    assert {m.name for m in METHODS} >= {stages[0] for stages in OURS.values()}
    known = {(c.format, c.method) for c in CELLS}
    for goal in GOALS:
        assert (goal.format, "ours") in known
        assert goal.rival is None or (goal.format, goal.rival) in known


def test_cells_by_glob() -> None:
    assert [c.method for c in chosen(("2:4/fp16",), ("espar*", "ours"), tuning=True)] == [
        "esparse", "esparse-shuffle", "ours"
    ]  # fmt: skip
    assert all(not c.tuned for c in chosen((), (), tuning=False))
    with pytest.raises(SlmcError, match="no row of the study has such a format and method; formats are 2:4/fp16"):
        chosen(("3:4*",), (), tuning=True)
