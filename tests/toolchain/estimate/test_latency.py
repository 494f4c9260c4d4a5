"""What a model will ask for is what its exported graph asks for; limits out of reach are said before a build."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from exporters.artifact.manifest import read_manifest
from exporters.graph_nodes import read_workload
from targets.cpus.catalog import named_cpu
from targets.cpus.cost import Prediction, predict
from targets.cpus.spec import CostRow, Cpu, to_toml
from toolchain.estimate.latency import LatencyForecast, model_workload, priced
from toolchain.model.catalog import load_model
from toolchain.pipeline.job import Job, prepare
from toolchain.pipeline.spec import resolve
from toolchain.search.plan import read_plan
from toolchain.search.problem import Problem

TARGET = """name = "slow"
architecture = "aarch64"
model = "Some core"
isa = "neon"
clock_ghz = 1.0
bandwidth_gbs = 0.01
"""


def test_predicted_and_exported_work_agree(tiny_model: Path, artifact: Path) -> None:
    recipe = read_manifest(artifact).recipe
    predicted = model_workload(load_model(tiny_model), {path: entry.format for path, entry in recipe.items()})
    exported = read_workload(artifact / "model.onnx")
    matrices = [
        sorted((n.layer, n.rows, n.cols, n.nbytes) for n in work.nodes if n.is_matrix) for work in (predicted, exported)
    ]
    assert matrices[0] == matrices[1]
    assert (predicted.states, predicted.state_bytes) == (exported.states, exported.state_bytes)
    others = [sum(not n.is_matrix for n in work.nodes) for work in (predicted, exported)]
    assert others[0] == pytest.approx(others[1], rel=0.15)
    for operator in ("ShiftMix2", "ShiftMix3", "GatedWkv", "SpikeAdd", "GatedSpikeAdd", "SquaredRelu"):
        counts = [sum(n.operator == operator for n in work.nodes) for work in (predicted, exported)]
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


def cost_rows(operator: str, fmt: str, rate: float, bits: int = 0) -> list[CostRow]:
    """Rows of a law without constants: `rate` us per weight."""
    shapes = ((64, 64), (128, 64), (256, 256))
    return [CostRow(operator, fmt, r, c, 1, bits, 1 << 16, rate * r * c) for r, c in shapes]


PLAIN = [CostRow("Add", "", width, 1, 1, 0, 0, 0.5) for width in (64, 256)]
CALLS = [CostRow("Session", "", states, 1, 1, 0, 0, 10.0) for states in (4, 32)]
COSTS = (
    *cost_rows("QLinear", "int8", 1e-2, 32), *cost_rows("QLinear", "int8", 5e-3, 8),
    *cost_rows("QLinear", "int4-g32", 1e-3, 32),
    *cost_rows("SparseLinear", "2:4/int4-g64", 2e-3, 32), *PLAIN, *CALLS,
)  # fmt: skip
"""Four bits are ten times as fast as eight, rounded inputs twice."""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    file = tmp_path / "priced.toml"
    file.write_text(to_toml(Cpu("priced", "aarch64", "Some core", "neon", costs=COSTS)))
    return file


def job(tiny_model: Path, target: Path | str, *formats: str, limit: str | None = None) -> Job:
    given = {"model": tiny_model, "output": Path("unused"), "effort": "quick", "formats": formats,
             "target": str(target), "max_latency": limit}  # fmt: skip
    return prepare(resolve(given, None, ()))


def priced_problem(made: Job) -> Problem:
    return priced(
        made.problem, made.model, named_cpu(made.spec.target), made.spec.threads, made.requirements.max_latency_ms
    )


def test_times_of_layers_add_up_to_the_forecast(tiny_model: Path, target: Path) -> None:
    """By hand: 36,224 weights of products in a tiny SpikeGPT of 2 blocks, width 32 and 300 tokens."""
    made = job(tiny_model, target, "int8", "2:4/int4-g64", limit="1ms")
    problem = priced_problem(made)
    times = problem.times
    assert times is not None and problem.constraints.max_ms == 1.0
    recipe = {path: options[0] for path, options in problem.options.items()}
    assert {c.format for c in recipe.values()} == {"sign", "int8"}
    work = model_workload(made.model, {path: c.format for path, c in recipe.items()})
    assert times.of(recipe) == pytest.approx(predict(named_cpu(str(target)), work).decode_ms)
    assert times.of(recipe) - times.fixed_ms == pytest.approx(36_224 * 1e-2 / 1e3)
    rounded = {path: dataclasses.replace(c, activations="int8") for path, c in recipe.items()}
    assert times.of(rounded) - times.fixed_ms == pytest.approx(36_224 * 5e-3 / 1e3)
    pruned = recipe | {"head": problem.options["head"][1]}
    assert times.of(recipe) - times.of(pruned) == pytest.approx(9_600 * 8e-3 / 1e3)


def test_without_measured_costs_there_are_no_times(tiny_model: Path) -> None:
    made = job(tiny_model, "raspberry-pi-5", "int8", limit="1ms")
    assert priced_problem(made) is made.problem and made.problem.constraints.max_ms is None


def test_the_search_steers_by_predicted_time(
    tiny_model: Path, target: Path, slmc: Callable[..., Result], tmp_path: Path
) -> None:
    fastest = priced_problem(job(tiny_model, target, "int4-g32"))
    slowest = priced_problem(job(tiny_model, target, "int8"))
    ends = [p.predicted_ms({path: o[0] for path, o in p.options.items()}) for p in (fastest, slowest)]
    limit = sum(ends) / 2  # type: ignore[arg-type]
    plan = tmp_path / "plan.json"
    command = ("search", tiny_model, "-o", plan, "--effort", "quick", "--formats", "int8", "--formats", "int4-g32")
    result = slmc(*command, "--target", target, "--max-latency", f"{limit}ms")
    assert result.exit_code == 0 and "ms predicted" in result.stderr
    found = read_plan(plan)
    (winner,) = (p for p in found.candidates if p.winner)
    assert winner.predicted_ms is not None
    assert 0.8 * limit < winner.predicted_ms <= limit
    assert {c.format for path, c in found.recipe.items() if path != "emb"} == {"int8", "int4-g32"}
    least = min(found.candidates, key=lambda p: p.upper)
    assert least.predicted_ms == pytest.approx(ends[1])  # it was tried, and takes too long
    assert slmc(*command, "--target", target, "--max-latency", "0.001ms", "--force").exit_code == 4


def test_a_dry_run_counts_what_was_asked_for(tiny_model: Path, tmp_path: Path, document: Callable[..., Any]) -> None:
    """15 linear layers and signs; three formats, three ladders of five, five roundings, and no limit to close in on."""
    formats = ("--formats", "int4-g32", "--formats", "2:4/int4-g64")
    found = document("build", tiny_model, "-o", tmp_path / "o", "--dry-run", "--effort", "quick", *formats,
                     "--activations", "search", "--tune", "50")  # fmt: skip
    assert (found["dense_pairs"], found["sparse_pairs"]) == (16, 15)
    assert (found["evaluations"], found["rounding_evaluations"]) == (3 + 15 + 5, 5)
    assert 0 < found["tuning_seconds"] < found["seconds"]
