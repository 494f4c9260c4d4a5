"""Build and export go the same way: every stage after the search is one function that both call."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolchain.pipeline import build
from toolchain.search.plan import read_plan

STAGES = ("calibrate", "_searched", "compressed_by", "finished", "deliver", "search", "reference_for")
QUICK = ("--effort", "quick", "--formats", "int4-g32", "--formats", "int8", "-q")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that are called, in order."""
    called: list[str] = []
    for name in STAGES:
        original = getattr(build, name)

        def record(*args: Any, _name: str = name, _original: Callable[..., Any] = original, **kwargs: Any) -> Any:
            called.append(_name)
            return _original(*args, **kwargs)

        monkeypatch.setattr(build, name, record)
    return called


def test_an_export_is_a_build_from_a_plan(
    tiny_model: Path, slmc: Callable[..., Any], tmp_path: Path, recorder: list[str]
) -> None:
    """The same stages after the search, and the same files to the byte; of the others only times differ."""
    built, exported = tmp_path / "built", tmp_path / "exported"
    assert slmc("build", tiny_model, "-o", built, *QUICK).exit_code == 0
    building = list(recorder)
    recorder.clear()
    assert slmc("export", tiny_model, "--plan", built / "plan.json", "-o", exported, "-q").exit_code == 0
    assert building == ["calibrate", "_searched", "search", "compressed_by", "finished", "deliver"]
    assert recorder == ["calibrate", "reference_for", "compressed_by", "finished", "deliver"]
    for file in ("model.onnx", "model.onnx.data", "plan.json"):
        assert (built / file).read_bytes() == (exported / file).read_bytes(), file
    sections = [json.loads((folder / "manifest.json").read_text()) for folder in (built, exported)]
    for section in ("source", "io", "recipe", "bytes", "quality", "parity", "constraints"):
        assert sections[0][section] == sections[1][section], section


def test_plans_of_version_2_are_read(tiny_model: Path, slmc: Callable[..., Any], tmp_path: Path) -> None:
    """As artifacts were shipped with: options and requirements beside the rest, the screening as a sentence."""
    path = tmp_path / "plan.json"
    assert slmc("search", tiny_model, "-o", path, *QUICK, "--max-drop", "50%").exit_code == 0
    new = json.loads(path.read_text())
    old = {key: value for key, value in new.items() if key not in ("options", "requirements", "candidates")}
    options = {"seed": 0, "effort": "quick", "tune": 0, "tune_for": "distribution", "context": None, "kv_cache": "fp32",
               "shuffle": None}  # fmt: skip
    old |= options | new["requirements"] | {"plan_version": 2, "points": new["candidates"], "screening": "a sentence"}
    path.write_text(json.dumps(old))
    plan = read_plan(path)
    assert plan.recipe and plan.requirements.max_drop == 0.5 and plan.screening is None
    assert plan.options == {key: value for key, value in options.items() if value is not None}
    assert len(plan.candidates) == len(new["candidates"])
    assert slmc("export", tiny_model, "--plan", path, "-o", tmp_path / "out", "-q").exit_code == 0
