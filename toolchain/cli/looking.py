"""The commands that show something: inspect, sensitivity, report, schema."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import MANIFEST_NAME, Manifest
from exporters.graph_nodes import Workload, read_workload
from targets.cpus.catalog import named_cpu
from targets.cpus.cost import predict
from targets.cpus.energy import Activity, estimate_energy
from targets.device import quantities
from targets.device.verify import open_artifact
from toolchain.calibration.activity import input_activity
from toolchain.cli.console import Console
from toolchain.cli.opening import opened, tell
from toolchain.cli.options import PATH, command, model_options, pins, search_options, signature_option
from toolchain.cli.verdicts import exit_code
from toolchain.delivery.package import read_report
from toolchain.delivery.promises import Found, broken, verdict
from toolchain.delivery.reports.catalog import REPORTS, render
from toolchain.delivery.reports.data import LayerRow, Report, report_from_json
from toolchain.delivery.reports.html import render_heatmap
from toolchain.estimate.latency import model_workload, old_costs
from toolchain.files.outputs import HEAT_MAP, check_output_file
from toolchain.files.outputs import REPORTS as REPORT_FILES
from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.files.workspace import write_whole
from toolchain.model.catalog import LoadedModel
from toolchain.model.recognition import UnknownFamily, found_tensors
from toolchain.model.text import read_text
from toolchain.pipeline.calibrate import Notifier, calibrate, evaluator_of
from toolchain.pipeline.job import prepare
from toolchain.pipeline.spec import Spec, resolve
from toolchain.search.outcome import LayerLoss
from toolchain.search.plan import Plan
from toolchain.search.sensitivity import sensitivities

ACTIVITY_TOKENS = 512
"""Tokens of our own text on which the inputs' activity is counted."""

SCHEMAS: dict[str, Any] = {"manifest": Manifest, "plan": Plan, "config": Spec, "report": Report}


@click.command("inspect")
@model_options
@click.option("--target", help="Also predict time and energy per token on this CPU; see 'slmc targets ls'.")
@click.option("--activity", is_flag=True, help="Also read a text, and say which layers see spikes and how many zeros.")
@signature_option
@command
def inspect_command(
    console: Console, model: Path, tokenizer: Path | None, family: str | None, target: str | None, activity: bool
) -> int:
    """Show the hierarchy, shapes, parameters and bytes of a MODEL, or the formats of an artifact."""
    if (model / MANIFEST_NAME).is_file():
        return _inspect_artifact(console, model, target)
    try:
        loaded = opened(console, model, tokenizer, family)
    except UnknownFamily as unknown:
        rows = [tuple(map(str, row)) for row in found_tensors(unknown.checkpoint)]
        console.table(f"{model}: no known family", ("tensor", "how many", "shape", "type"), rows)
        raise
    tree = loaded.tree
    seen = _activity(loaded) if activity or target else {}
    rows = [
        (layer.path, block.path, f"{layer.rows} x {layer.cols}", quantities.count_text(layer.params),
         quantities.bytes_text(layer.bytes_fp32), f"{layer.exact} only" if layer.exact else layer.kind,
         _inputs_text(seen.get(layer.path)))
        for block in tree.blocks for layer in block.layers
    ]  # fmt: skip
    head = ("layer", "block", "shape", "parameters", "fp32", "kind", "inputs")
    console.table(f"{loaded.name}: {tree.family}", head if seen else head[:-1], [r if seen else r[:-1] for r in rows])
    document = {
        "family": tree.family, "params": tree.params, "vector_params": tree.vector_params,
        "state_values": tree.state_values, "bytes_fp32": tree.bytes_fp32, "sha256": loaded.sha256,
        "blocks": [{"path": b.path, "layers": [dataclasses.asdict(x) for x in b.layers]} for b in tree.blocks],
    }  # fmt: skip
    total = f"{quantities.count_text(tree.params)} parameters in {len(tree.layers)} layers and "
    total += f"{tree.vector_params} others, {quantities.bytes_text(tree.bytes_fp32)} as fp32"
    total += f" with {tree.state_values} carried values"
    document |= {"activity": {path: dataclasses.asdict(found) for path, found in seen.items()}} if seen else {}
    prediction, prediction_text = _model_forecast(loaded, target, seen) if target else ({}, "")
    console.result(document | prediction, total + prediction_text)
    return 0


def _inspect_artifact(console: Console, artifact: Path, target: str | None) -> int:
    manifest = open_artifact(artifact)
    work = read_workload(artifact / "model.onnx")
    prediction, prediction_text = _forecast(work, target, {}) if target else ({}, "")
    rows = [
        (path, e.format, e.method, e.activations, f"{e.bits_per_weight:.2f}", quantities.bytes_text(e.bytes))
        for path, e in manifest.recipe.items()
    ]
    console.table(str(artifact), ("layer", "format", "method", "inputs", "bits/weight", "bytes"), rows)
    counts = Counter(e.format for e in manifest.recipe.values())
    b = manifest.bytes
    share = quantities.percent((b.weights + b.states) / b.uncompressed)
    text = f"{quantities.bytes_text(b.weights + b.states)} of weights and states, {share} of fp32; " + ", ".join(
        f"{n} x {name}" for name, n in counts.most_common()
    )
    console.result(dataclasses.asdict(manifest) | prediction, text + prediction_text)
    return 0


def _forecast(work: Workload, target: str, activity: dict[str, Activity]) -> tuple[dict[str, Any], str]:
    """Time and energy per token on a target: as a document and as text. Neither is measured."""
    cpu = named_cpu(target)
    latency, energy = predict(cpu, work), estimate_energy(work, cpu.last_cache_bytes, activity)
    of = f" of {cpu.runtime}" if cpu.costs and cpu.runtime else ""
    text = (
        f"\n{cpu.name}: {latency.decode_ms:.3g} ms per token on one thread, predicted ({latency.basis}{of}), "
        f"{latency.weight_bytes} bytes read; about {energy.total_uj:.3g} uJ, estimated from published constants"
    )
    if activity:
        text += (
            f": {energy.macs} multiply-accumulates, {energy.accumulates} synaptic operations of spikes, "
            f"{energy.skipped} products with zero"
        )
    if latency.assumed:
        text += "\nassumed: " + "; ".join(latency.assumed)
    if old := old_costs(cpu):
        text += f"\nnote: {old}"
    return {"predicted": dataclasses.asdict(latency), "energy_estimate": dataclasses.asdict(energy)}, text


def _model_forecast(model: LoadedModel, target: str, activity: dict[str, Activity]) -> tuple[dict[str, Any], str]:
    """The same for a model as it is, fp32, with the activity of its inputs."""
    work = model_workload(model, dict.fromkeys((layer.path for layer in model.tree.layers), "fp32"))
    return _forecast(work, target, activity)


def _activity(model: LoadedModel) -> dict[str, Activity]:
    """The activity of every linear layer's inputs on our own text."""
    text = read_text(SHIPPED_TEXTS / "calibration.txt", model.tokenizer, model.forward.context).head(ACTIVITY_TOKENS)
    return input_activity(model, text.ids)


def _inputs_text(found: Activity | None) -> str:
    """Spikes and their rate, numbers of spikes, or the share of zeros; nothing of a layer that is looked up."""
    if found is None:
        return ""
    if found.spikes:
        return f"spikes, {quantities.percent(found.nonzero)}"
    zeros = f"{quantities.percent(1 - found.nonzero)} zeros"
    return f"numbers of spikes, {zeros}" if found.counts else zeros


@click.command("sensitivity")
@model_options
@search_options
@click.option("--html", type=PATH, help="Also write the heat map as a web page.")
@command
def sensitivity_command(
    console: Console, model: Path, config: Path | None, settings: tuple[str, ...], html: Path | None, **flags: Any
) -> int:
    """Show what every layer of MODEL is expected to lose in every format, nats per token."""
    if html is not None:
        check_output_file(html, HEAT_MAP, force=True)
    flags["layer"] = pins(flags.get("layer") or ())
    job = prepare(resolve(flags | {"model": model, "output": Path("unused")}, config, settings))
    tell(console, job.model)
    with tempfile.TemporaryDirectory() as folder, console.working():
        calibrated = calibrate(job, Path(folder), Notifier(progress=console.progress, say=console.note))
        job = calibrated.job
        evaluator = evaluator_of(calibrated, Path(folder))
        found = sensitivities(job.problem, evaluator, lambda d, t: console.progress("sensitivity", d, t))
    formats = list(dict.fromkeys(s.config.format for s in found))
    cells = {(s.layer, s.config.format): f"{s.loss:.2g}" for s in found}
    tree = calibrated.model.tree
    rows = [(x.path, *(cells.get((x.path, f), "") for f in formats)) for x in tree.layers]
    console.table("expected loss in nats per token", ("layer", *formats), rows)
    if html is not None:
        listed = [LayerLoss(s.layer, s.config.format, s.loss, s.bytes) for s in found]
        layers = [
            LayerRow(
                path=x.path,
                block=block.path,
                rows=x.rows,
                cols=x.cols,
                format="fp32",
                method="nearest",
                bytes=x.bytes_fp32,
                bytes_fp32=x.bytes_fp32,
            )
            for block in tree.blocks
            for x in block.layers
        ]
        write_whole(html, render_heatmap(layers, listed, job.model.name))
    document = [
        {
            "layer": s.layer,
            "format": s.config.format,
            "method": s.config.method,
            "loss": s.loss,
            "bytes": s.bytes,
        }
        for s in found
    ]
    console.result(document, f"{len(found)} layer and format pairs" + (f"; picture: {html}" if html else ""))
    return 0


@click.command("report")
@click.argument("artifact", type=PATH)
@click.option("--format", "kind", default="md", help=f"One of {', '.join(REPORTS)}.")
@click.option("-o", "--output", type=PATH, help="File to write; stdout if not given.")
@signature_option
@command
def report_command(console: Console, artifact: Path, kind: str, output: Path | None) -> int:
    """Show an ARTIFACT's report again."""
    if output is not None:
        check_output_file(output, REPORT_FILES.get("json" if console.as_json else kind, REPORT_FILES["md"]), force=True)
    promises = verdict(open_artifact(artifact), Found())
    report = report_from_json(read_report(artifact))
    text = render(report, "json" if console.as_json else kind)
    if output is None:
        click.echo(text)
    else:
        write_whole(output, text)
    for name in broken(promises):
        console.note(f"{artifact}: broken promise: {name}")
    console.detail("these figures were measured at the build; 'slmc validate' compares them with today's")
    return exit_code(promises)


@click.command("schema")
@click.argument("name", default="manifest")
@command
def schema_command(console: Console, name: str) -> int:
    """The JSON Schema of manifest, plan, config or report."""
    if name not in SCHEMAS:
        raise SlmcError(f"unknown schema {name!r}; allowed are {', '.join(SCHEMAS)}")
    click.echo(json.dumps(TypeAdapter(SCHEMAS[name]).json_schema(), indent=2))
    return 0
