"""The commands that make artifacts: build, and its halves search and export."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from exporters.artifact.errors import ConstraintsNotMet, SlmcError
from exporters.artifact.manifest import ACCURACY, Manifest, Quality
from exporters.artifact.native_library import library_path
from exporters.artifact.runtimes import ONNXRUNTIME, SLMC_RUN
from targets.cpus.catalog import named_cpu
from targets.device import quantities
from toolchain.cli.boards import PLACE, board_options, boards_of, say_rounds
from toolchain.cli.console import Console
from toolchain.cli.opening import tell
from toolchain.cli.options import PATH, command, model_options, pins, search_options, text_options
from toolchain.delivery.boards import Board
from toolchain.delivery.deliver import Delivered
from toolchain.delivery.operators import operator_libraries, runtime_programs
from toolchain.estimate.effort import forecast, reading_seconds
from toolchain.estimate.latency import LatencyForecast, forecast_latency, old_costs
from toolchain.files.outputs import PLAN, check_output, check_output_file
from toolchain.model.offloading import staying_on_disk
from toolchain.pipeline.build import build, export, find
from toolchain.pipeline.calibrate import Notifier
from toolchain.pipeline.job import Job, prepare
from toolchain.pipeline.rounds import build_on
from toolchain.pipeline.spec import Spec, resolve
from toolchain.search.nearest import nearest_limits
from toolchain.search.plan import check_plan, read_plan
from toolchain.search.problem import Problem
from toolchain.transform.transformation import tree_after

RECIPE_OPTIONS = ("formats", "layer", "target")
"""Options of a plan that an export does not repeat: the recipe stands for them, and it is measured here."""


def _spec(output: Path, model: Path, config: Path | None, settings: tuple[str, ...], flags: dict[str, Any]) -> Spec:
    flags["layer"] = pins(flags.get("layer") or ())
    return resolve(flags | {"model": model, "output": output}, config, settings)


def _job(console: Console, spec: Spec) -> Job:
    job = prepare(spec)
    tell(console, job.model)
    cpu = named_cpu(job.spec.target)
    if old := old_costs(cpu):
        console.note(f"note: {old}")
    if cpu.costs and cpu.of_slmc_run and not spec.runtime:
        console.note(f"note: {cpu.name}: its costs are those of slmc-run; with --runtime slmc-run it goes along")
    return job


@click.command("build")
@model_options
@click.option("-o", "--output", type=PATH, required=True, help="The artifact's folder.")
@search_options
@board_options
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted build stopped.")
@click.option(
    "--dry-run", is_flag=True, help="Only print what would be done, and the time, memory and disk space it needs."
)
@command
def build_command(
    console: Console, model: Path, output: Path, config: Path | None, settings: tuple[str, ...], force: bool,
    resume: bool, dry_run: bool, on: tuple[str, ...], probe: str, **flags: Any,
) -> int:  # fmt: skip
    """Compress MODEL under constraints, prove it on ONNX Runtime, and write a deployable artifact.

    With --on, boards decide: what operators cost there is measured once, the artifact is measured there, and where it
    misses a limit that the forecast met, the search goes on with what was learned, three rounds at most. With --runtime
    it is slmc-run that is measured there, and the boards need nothing.
    """
    check_output(output, force=force or dry_run)
    library_path()  # an artifact brings it: better missed now than after the search
    place = {name: flags.pop(name) for name in PLACE}
    spec = _spec(output, model, config, settings, flags)
    libraries = operator_libraries(spec.native)
    with console.working():
        boards = boards_of(
            on, place, console, target=spec.target, libraries=libraries, programs=runtime_programs(spec.runtime),
            probe=probe,
        )  # fmt: skip
    job = _job(console, spec)
    latency = _latency(job, boards)
    if dry_run:
        loaded, on_disk = job.model, job.model.weight_storage == "disk"
        timed = None if on_disk or loaded.classes else reading_seconds(loaded.forward, loaded.tree.vocabulary)
        plan = forecast(
            job.problem, len(job.calibration.ids), len(job.evaluation.ids), job.spec.tune, on_disk=on_disk,
            token_s=timed,
        )  # fmt: skip
        document = dataclasses.asdict(plan) | {"latency": dataclasses.asdict(latency) if latency else None}
        console.result(document, "\n".join([plan.text(), *([latency.text()] if latency else [])]))
        return ConstraintsNotMet.exit_code if latency and latency.out_of_reach else 0
    if latency:
        console.note(latency.text())
    if job.model.weight_storage == "disk":
        console.note(staying_on_disk(job.model.tree))
    with console.working():
        if boards:
            delivered = build_on(job, boards, force=force, resume=resume, notifier=_notifier(console))
        else:
            delivered = build(job, force=force, resume=resume, notifier=_notifier(console))
    return _announce(console, delivered, job.problem)


@click.command("search")
@model_options
@click.option("-o", "--output", type=PATH, required=True, help="plan.json to write.")
@search_options
@click.option("--force", is_flag=True, help="Replace an existing plan.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted search stopped.")
@command
def search_command(
    console: Console, model: Path, output: Path, config: Path | None, settings: tuple[str, ...], force: bool,
    resume: bool, **flags: Any,
) -> int:  # fmt: skip
    """Find the best recipe for MODEL under constraints and write it as a plan."""
    check_output_file(output, PLAN, force=force)
    job = _job(console, _spec(output, model, config, settings, flags))
    with console.working():
        _, result = find(job, resume=resume, notifier=_notifier(console))
    winner = result.winner
    text = (
        f"{output}: {quantities.bytes_text(winner.bytes)} ({winner.bytes / job.model.tree.bytes_fp32:.2%} of fp32), "
        f"expected drop {winner.drop:.2%}, at most {winner.upper:.2%}; {len(result.trace)} candidates tried"
    )
    summary = {"plan": str(output), "bytes": winner.bytes, "drop": winner.drop, "upper": winner.upper,
               "feasible": result.feasible, "candidates": len(result.trace)}  # fmt: skip
    console.result(summary, text)
    if not result.feasible:
        near = nearest_limits(job.problem, result.trace)
        _warn("not every constraint could be met; this is the closest recipe" + (near and f"; {near}"))
    return 0 if result.feasible else ConstraintsNotMet.exit_code


@click.command("export")
@model_options
@click.option("--plan", "plan_path", type=PATH, required=True, help="plan.json of 'slmc search'.")
@click.option("-o", "--output", type=PATH, required=True, help="The artifact's folder.")
@text_options
@click.option("--threads", type=int)
@click.option(
    "--native",
    multiple=True,
    type=PATH,
    help="libslmc_ops.so of another platform to include in the artifact. Repeatable.",
)
@click.option(
    "--runtime",
    multiple=True,
    type=PATH,
    help="Include slmc-run in the artifact; or a file: slmc-run of another platform. Repeatable.",
)
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted export stopped.")
@command
def export_command(
    console: Console, model: Path, plan_path: Path, output: Path, force: bool, resume: bool, **flags: Any
) -> int:
    """Carry out a plan: compress, export, validate and measure MODEL, and write the artifact."""
    check_output(output, force=force)
    library_path()  # as for build
    plan = read_plan(plan_path)
    given = {"model": model, "output": output}
    planned = {key: value for key, value in plan.options.items() if key not in RECIPE_OPTIONS}
    try:
        resolve(planned | given, None, ())
    except SlmcError as error:
        raise SlmcError(f"{plan_path}: {error}; make a plan with 'slmc search'") from error
    job = prepare(resolve(planned | {key: value for key, value in flags.items() if value} | given, None, ()))
    tell(console, job.model)
    check_plan(plan, tree_after(job.model, plan.transformations), job.model.sha256, str(plan_path))
    with console.working():
        delivered = export(job, plan, force=force, resume=resume, notifier=_notifier(console))
    return _announce(console, delivered, job.problem)


def _notifier(console: Console) -> Notifier:
    return Notifier(progress=console.progress, say=console.note)


def _latency(job: Job, boards: Sequence[Board]) -> LatencyForecast | None:
    """On the slowest board, or on the target."""
    limit_ms = job.requirements.max_latency_ms
    cpus = [board.cpu for board in boards] or [named_cpu(job.spec.target)]
    found = [forecast_latency(job.problem, job.model, cpu, job.spec.threads, limit_ms) for cpu in cpus]
    known = [forecast for forecast in found if forecast is not None]
    return max(known, key=lambda forecast: forecast.fastest.decode_ms, default=None)


def _announce(console: Console, delivered: Delivered, problem: Problem) -> int:
    """The final table; exit code 4 if a constraint is missed."""
    manifest = delivered.manifest
    quality, speed, parity = manifest.quality, manifest.measured, manifest.parity
    assert quality is not None and speed is not None and parity is not None
    whole, stored = manifest.bytes.uncompressed, manifest.bytes.weights + manifest.bytes.states
    rows = [
        ("weights and states", *map(quantities.bytes_text, (whole, stored)), f"{stored / whole:.2%} of fp32"),
        *_quality_rows(quality),
        ("KL to fp32, top-1 agreement", "", f"{quality.kl_mean:.4f}", f"{quality.top1_agreement:.2%}"),
        ("parity with torch, top-1", "", f"{parity.top1_agreement:.2%}", f"perplexity x {parity.perplexity_ratio:.5f}"),
        ("time per token, p50 / p99", "", f"{speed.decode_ms.p50:.2f} ms", f"{speed.decode_ms.p99:.2f} ms"),
        ("generation, prompt", "", f"{speed.decode_tps:.0f} tok/s", f"{speed.prompt_tps:.0f} tok/s"),
        ("peak memory over empty runtime", "", quantities.bytes_text(speed.rss_peak_bytes - speed.rss_baseline_bytes),
         f"{speed.isa}, native {'yes' if speed.native else 'no'}"),
        *_own_runtime_rows(manifest),
    ]  # fmt: skip
    rows.append(_inputs_row(manifest))
    console.table(f"{delivered.folder}", (f"measured on {_RUNTIMES[speed.runtime]}", "fp32", "artifact", ""), rows)
    say_rounds(console, delivered.rounds)
    for doubt in delivered.doubts:
        console.note(f"doubtful measurement: {doubt}")
    missed = [c for c in manifest.constraints if not c.met]
    for c in manifest.constraints:
        text = (
            f"{c.name}: {quantities.quantity(c.actual, c.unit)} of at most {quantities.quantity(c.limit, c.unit)}: "
            f"{'met' if c.met else 'MISSED'}"
        )
        (console.note if c.met else _warn)(text)
    if console.as_json:
        rounds = {"rounds": [dataclasses.asdict(r) for r in delivered.rounds]} if delivered.rounds else {}
        console.result(dataclasses.asdict(manifest) | rounds, "")
    else:
        report, run = (shlex.quote(str(delivered.folder / name)) for name in ("report.html", "run.py"))
        console.result(None, f"report: {report}    text: python {run}")
    if missed:
        near = nearest_limits(problem, delivered.report.points)
        _warn("not every constraint could be met; this is the closest artifact" + (near and f"; {near}"))
    return ConstraintsNotMet.exit_code if missed else 0


_RUNTIMES = {ONNXRUNTIME: "ONNX Runtime", SLMC_RUN: SLMC_RUN}


def _inputs_row(manifest: Manifest) -> tuple[str, str, str, str]:
    """How many layers have their inputs rounded."""
    rounded = sum(entry.activations == "int8" for entry in manifest.recipe.values())
    return ("layers with 8-bit inputs", "", f"{rounded} of {len(manifest.recipe)}", "--activations")


def _own_runtime_rows(manifest: Manifest) -> list[tuple[str, str, str, str]]:
    """What slmc-run takes, where it goes along."""
    own = manifest.slmc_run
    if own is None:
        return []
    speed, text = own.measured, "text" if own.tokenizer is None else f"token ids only: {own.tokenizer}"
    time = f"{speed.decode_ms.p50:.2f} ms per token" if speed else "not measured"
    return [("slmc-run, whole process", text, time, quantities.bytes_text(speed.rss_peak_bytes) if speed else "")]


def _quality_rows(quality: Quality) -> list[tuple[str, str, str, str]]:
    """The metric beside the fp32 model's."""
    drop = f"{quality.relative_drop:+.2%}, at most {quality.relative_drop_upper:+.2%}"
    if quality.metric == ACCURACY:
        return [
            (f"accuracy, {quality.tokens} sentences", f"{quality.reference:.2%}", f"{quality.compressed:.2%}", drop)
        ]
    return [
        (f"perplexity, {quality.tokens} tokens", f"{quality.reference:.3f}", f"{quality.compressed:.3f}", drop),
        ("bits per byte", f"{quality.bits_per_byte_reference:.4f}", f"{quality.bits_per_byte:.4f}", ""),
    ]


def _warn(text: str) -> None:
    click.echo(text, err=True)
