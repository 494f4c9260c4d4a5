"""A study as a user runs it: every cell paid once, interrupted anywhere, and better where more is done."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.text import read_text
from toolchain.study import run as running
from toolchain.study.cells import Cell, chosen
from toolchain.study.opening import StudyOptions, cell_result, open_study
from toolchain.study.results import Result
from toolchain.study.run import Study, run_study

Slmc = Callable[..., Any]
SMALL = ("--tokens", "600", "--calibration-tokens", "1500", "--tune", "30")
ROWS = ("--formats", "2:4/fp16", "--formats", "int2-g64", "--methods", "[!ewr]*")
"""magnitude, sparsegpt, alps and ours at 2:4; nearest, gptq, descent and ours in two bits."""


def rows(document: Any) -> dict[tuple[str, str], dict[str, Any]]:
    return {(c["format"], c["method"]): c for c in document["cells"]}


@pytest.fixture(scope="module")
def studied(
    tiny_model: Path, document: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("study") / "out"
    return folder, document("study", tiny_model, "-o", folder, *SMALL, *ROWS)


def test_figures_are_those_of_the_model(studied: tuple[Path, Any], tiny_model: Path) -> None:
    found, tree = rows(studied[1]), load_model(tiny_model).tree
    assert len(found) == 8
    layers = [x for x in tree.layers if x.kind == "linear" and x.path != "head"]
    for (fmt, _), cell in found.items():
        size = sum(bytes_for(format_named("fp16" if "fp16" in fmt else fmt), x.rows, x.cols) for x in layers)
        assert cell["bytes"] == size
        assert cell["perplexity"] == pytest.approx(cell["reference"] * (1 + cell["relative_drop"]))
    two = found["int2-g64", "gptq"]
    assert two["bits_per_weight"] == pytest.approx(8 * two["bytes"] / sum(x.params for x in layers))


def test_what_makes_errors_good_loses_less(studied: tuple[Path, Any]) -> None:
    found = rows(studied[1])

    def error(fmt: str, method: str) -> float:
        value: float = found[fmt, method]["layer_error"]
        return value

    assert error("2:4/fp16", "alps") < error("2:4/fp16", "sparsegpt") < error("2:4/fp16", "magnitude")
    assert error("int2-g64", "descent") < error("int2-g64", "gptq") < error("int2-g64", "nearest")
    assert found["2:4/fp16", "ours"]["kl_mean"] < found["2:4/fp16", "alps"]["kl_mean"]
    assert found["int2-g64", "ours"]["kl_mean"] < found["int2-g64", "descent"]["kl_mean"]


def test_tables_and_picture_stand_in_the_folder(studied: tuple[Path, Any]) -> None:
    folder, told = studied
    assert {f.name for f in folder.iterdir()} >= {"study.md", "study.json", "study.svg", "cells.jsonl"}
    assert not list(folder.glob("tuning-*"))
    assert rows(json.loads((folder / "study.json").read_text(encoding="utf-8"))) == rows(told)
    text = (folder / "study.md").read_text(encoding="utf-8")
    assert text.count("\n| 2:4/fp16 |") == 4 + 1  # and a bar
    assert told["bars"][0]["format"] == "2:4/fp16"


def test_a_second_time_costs_nothing(
    studied: tuple[Path, Any], tiny_model: Path, document: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "Runner", None)
    again = document("study", tiny_model, "-o", studied[0], *SMALL, *ROWS)
    assert again == studied[1]


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> LoadedModel:
    return load_model(tiny_model)


def study_of(loaded: LoadedModel, folder: Path) -> Study:
    text = read_text(SHIPPED_TEXTS / "calibration.txt", loaded.tokenizer)
    return Study(loaded, text.head(1000), text, text.head(300), "ffn", 30, folder)


def test_an_interrupted_study_goes_on_and_ends_the_same(loaded: LoadedModel, tmp_path: Path) -> None:
    cells = chosen(("2:4/fp16",), ("magnitude", "ours"), tuning=True)
    whole = run_study(study_of(loaded, tmp_path / "whole"), cells, lambda *_: None, lambda *_: None)
    told: list[Cell] = []

    def stop_in_tuning(stage: str, done: int, _total: int) -> None:
        if stage.endswith("distil") and done == 27:
            raise KeyboardInterrupt

    study = study_of(loaded, tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        run_study(study, cells, stop_in_tuning, lambda cell, _: told.append(cell))
    assert [c.method for c in told] == ["magnitude"]
    assert list(study.folder.glob("tuning-*.pt"))
    steps: list[int] = []
    after = run_study(study, cells, lambda s, d, _: steps.append(d) if s.endswith("distil") else None, lambda *_: None)
    assert steps[0] == 26  # from the state that was saved at step 25

    def timeless(results: dict[Cell, Result]) -> list[Result]:
        return [dataclasses.replace(r, seconds=0.0) for r in results.values()]

    assert timeless(after) == timeless(whole)


def test_alpha_and_bins_of_esparse_are_parameters(
    tiny_model: Path, document: Callable[..., Any], tmp_path: Path
) -> None:
    """With a large alpha only the norm counts, as for Wanda; with 2 bins entropies are others."""
    options = ("-o", tmp_path / "out", "--formats", "2:4/fp16", "--methods", "esparse", "--methods", "wanda", *SMALL)
    found = [
        rows(document("study", tiny_model, *options, *more))
        for more in ((), ("--alpha", "1e6"), ("--bins", "2"), ("--alpha", "0"))
    ]
    errors = [f["2:4/fp16", "esparse"]["layer_error"] for f in found]
    assert errors[1] == pytest.approx(found[0]["2:4/fp16", "wanda"]["layer_error"], rel=1e-3)
    assert len({round(e, 6) for e in errors}) == 4


BAD = [
    (("--formats", "3:4*"), ("no row of the study",)),
    (("--layers", "nowhere"), ("--layers 'nowhere' matches no linear layer",)),
    (("--layers", "("), ("no regular expression",)),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=lambda v: str(v)[:30])
def test_bad_input(
    options: tuple[str, ...], words: tuple[str, ...], tiny_model: Path, fails: Callable[..., None], tmp_path: Path
) -> None:
    fails(("study", tiny_model, "-o", tmp_path / "out", *options), 2, *words)


def test_a_file_in_place_of_the_folder(tiny_model: Path, fails: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    fails(("study", tiny_model, "-o", tmp_path / "out"), 2, "not a folder; give a folder for a study")


def test_rows_that_workers_work_out_are_the_same(tiny_model: Path, tmp_path: Path, loaded: LoadedModel) -> None:
    """A worker opens the study once more by its options, and reads the statistics that lie in its folder."""
    options = StudyOptions(
        model=tiny_model, tokenizer=None, family=None, folder=tmp_path, calibration=None, eval=None, text_field=None,
        layers="ffn", tokens=300, calibration_tokens=1000, tune=0, bins=100, alpha=1.0, threads=1,
    )  # fmt: skip
    cells = chosen(("int3-g64", "2:4/fp16"), ("nearest", "magnitude"), tuning=False)
    study = open_study(options, loaded)
    alone = run_study(dataclasses.replace(study, folder=tmp_path / "alone"), cells, lambda *_: None, lambda *_: None)
    heard: list[Cell] = []
    together = run_study(
        study, cells, lambda *_: None, lambda cell, result: heard.append(cell),
        lambda some: [(cell, cell_result(options, cell)) for cell in reversed(some)],
    )  # fmt: skip
    assert sorted(heard, key=cells.index) == list(cells)
    for cell in cells:
        assert dataclasses.replace(together[cell], seconds=0.0) == dataclasses.replace(alone[cell], seconds=0.0)
