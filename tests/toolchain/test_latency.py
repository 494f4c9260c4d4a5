"""What a model will ask for is what its exported graph asks for; limits out of reach are said before a build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from exporters.graph_nodes import read_workload
from exporters.manifest import read_manifest
from targets.cost import Prediction
from toolchain.latency import LatencyForecast, model_workload
from toolchain.model.catalog import load_model

TARGET = """name = "slow"
architecture = "aarch64"
model = "Some core"
isa = "neon"
clock_ghz = 1.0
bandwidth_gbs = 0.01
"""


def test_foretold_and_exported_work_agree(tiny_model: Path, artifact: Path) -> None:
    recipe = read_manifest(artifact).recipe
    foretold = model_workload(load_model(tiny_model), {path: entry.format for path, entry in recipe.items()})
    exported = read_workload(artifact / "model.onnx")
    matrices = [
        sorted((n.layer, n.rows, n.cols, n.nbytes) for n in work.nodes if n.is_matrix) for work in (foretold, exported)
    ]
    assert matrices[0] == matrices[1]
    assert (foretold.states, foretold.state_bytes) == (exported.states, exported.state_bytes)
    others = [sum(not n.is_matrix for n in work.nodes) for work in (foretold, exported)]
    assert others[0] == pytest.approx(others[1], rel=0.15)
    for operator in ("ShiftMix2", "ShiftMix3", "GatedWkv", "SpikeAdd", "GatedSpikeAdd", "SquaredRelu"):
        counts = [sum(n.operator == operator for n in work.nodes) for work in (foretold, exported)]
        assert counts[0] == counts[1] > 0, operator


@pytest.mark.parametrize(("limit", "out"), [(None, False), (10.0, False), (9.0, False), (8.0, True)])
def test_only_beyond_the_margin_is_out_of_reach(limit: float | None, out: bool) -> None:
    forecast = LatencyForecast("t", Prediction(10.0, "estimate", 9.0, 1.0, 0.0, 5, ()), limit)
    assert forecast.out_of_reach is out and ("out of reach" in forecast.text()) is out
    assert "estimated" in forecast.text()


def test_dry_run_says_what_cannot_be_reached(
    tiny_model: Path, tmp_path: Path, slmc: Callable[..., object], document: Callable[..., dict[str, dict[str, object]]]
) -> None:
    target = tmp_path / "slow.toml"
    target.write_text(TARGET)
    command = ("build", tiny_model, "-o", tmp_path / "out", "--dry-run", "--target", target)
    result = slmc(*command, "--max-latency", "0.001ms")
    assert result.exit_code == 4 and "out of reach by this forecast" in result.stdout  # type: ignore[attr-defined]
    assert document(*command, "--max-latency", "9s")["latency"]["fastest"]["basis"] == "estimate"  # type: ignore[index]


def test_inspect_predicts(
    artifact: Path, tiny_model: Path, document: Callable[..., dict[str, dict[str, object]]], fails: Callable[..., None]
) -> None:
    found = document("inspect", artifact, "--target", "raspberry-pi-5")
    assert found["predicted"]["basis"] == "estimate" and found["energy_estimate"]["memory_uj"] > 0  # type: ignore[operator]
    fp32 = document("inspect", tiny_model, "--target", "raspberry-pi-5")
    assert fp32["predicted"]["weight_bytes"] > found["predicted"]["weight_bytes"]  # type: ignore[operator]
    assert fp32["energy_estimate"]["skipped"] > 0 == fp32["energy_estimate"]["accumulates"]  # type: ignore[operator]
    fails(("inspect", artifact, "--target", "aarch64-generic"), 5, "no costs and no bandwidth", "slmc targets probe")
