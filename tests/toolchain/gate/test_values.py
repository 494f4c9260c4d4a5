"""A baseline file is written, read back, and refused when it is not what was written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import Producer
from toolchain.gate.values import ARTIFACT, Baseline, Figures, Speed, packed, read_baseline, unpacked

TOKENS = (5, 0, 2047, 70_000, 5)


@pytest.fixture
def baseline(figures: Figures) -> Baseline:
    return Baseline(
        1, Producer("slmc", "0.1.0"), "2025-01-01T00:00:00+00:00", "tiny", ARTIFACT, packed(TOKENS), figures
    )


def written(path: Path, baseline: Baseline, **values: Any) -> Path:
    path.write_text(json.dumps(json.loads(baseline.to_json()) | values))
    return path


def test_round_trip(baseline: Baseline, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(baseline.to_json())
    assert read_baseline(path) == baseline
    assert unpacked(baseline.reference_tokens, path) == TOKENS
    assert baseline.to_json() == read_baseline(path).to_json(), "git must see no change where there is none"


def test_several_boards_in_one_file(baseline: Baseline, figures: Figures, tmp_path: Path) -> None:
    """Each machine is compared with its own figures; an unknown one with the first, which says what differs."""
    other = dataclasses.replace(figures, machine=dataclasses.replace(figures.machine, cpu="Another"))
    both = dataclasses.replace(baseline, boards=(other,))
    (tmp_path / "b.json").write_text(both.to_json())
    read = read_baseline(tmp_path / "b.json")
    assert read == both and read.on(other.machine) == other and read.on(figures.machine) == figures
    assert read.on(dataclasses.replace(figures.machine, threads=9)) == figures
    assert "boards" not in json.loads(baseline.to_json()), "a file of one machine is as it was"
    nothing = json.loads(both.to_json())["boards"][0] | {"model_memory_bytes": []}
    with pytest.raises(SlmcError, match="holds no measurements"):
        read_baseline(written(tmp_path / "b.json", both, boards=[nothing]))


def test_refused(baseline: Baseline, tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    empty = json.loads(baseline.to_json())["figures"] | {"model_memory_bytes": []}
    for values, words in (
        ({"schema_version": 2}, "schema_version is 2, this slmc reads 1"),
        ({"schema_version": True}, "schema_version is True"),
        ({"more": 1}, "unknown more"),
        ({"artifact": None}, "artifact: expected str"),
        ({"reference_tokens": "no base64!"}, "reference_tokens are damaged"),
        ({"reference_tokens": packed((1, 2))}, "not as many as text.tokens"),
        ({"figures": empty}, "holds no measurements"),
    ):
        with pytest.raises(SlmcError, match=words) as error:
            read_baseline(written(path, baseline, **values))
        assert "b.json" in str(error.value)
    path.write_text("{")
    with pytest.raises(SlmcError, match="not JSON"):
        read_baseline(path)
    with pytest.raises(SlmcError, match="--update-baseline"):
        read_baseline(tmp_path / "nowhere.json")


def test_normalised() -> None:
    assert Speed((1.0, 3.0), 2.0).normalised == (0.5, 1.5)
