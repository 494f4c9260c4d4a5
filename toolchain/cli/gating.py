"""slmc gate: has an artifact become worse than the baseline that is kept in git?"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import MANIFEST_NAME, Manifest, Producer
from exporters.artifact.runtimes import STOCK
from targets.device.measurement import Measurement
from targets.device.verify import open_artifact
from toolchain.cli.console import Console
from toolchain.cli.execution import ExecutionOptions, execution_target, on_boards, run_options, runtime_option
from toolchain.cli.options import PATH, THREADS, command, signature_option, text_field_option
from toolchain.cli.verdicts import judged
from toolchain.delivery.evaluation import TEXT_TOKENS, artifact_text, evaluate_artifact, found_by, reference_model
from toolchain.delivery.execution import ExecutionTarget
from toolchain.delivery.package import now
from toolchain.delivery.promises import KEPT, NOT_COMPARED, Promise
from toolchain.delivery.validate import artifact_session
from toolchain.files.outputs import BASELINE, CHART, JUNIT, check_output_file
from toolchain.files.workspace import write_whole
from toolchain.gate.checks import FAILED, PASSED, Check, Compared, Tolerances, parse_tolerances, run_checks
from toolchain.gate.observe import figures, measure_speed, speed
from toolchain.gate.render import annotation_lines, benchmark_json, junit, markdown
from toolchain.gate.values import ARTIFACT, MODEL, SCHEMA_VERSION, Baseline, packed, read_baseline, unpacked
from toolchain.model.text import Text
from toolchain.quality.predictions import predictions

GATE_FAILED = 3
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


@click.command("gate")
@click.argument("artifact", type=PATH)
@click.option("--baseline", "baseline_path", type=PATH, required=True, help="Baseline file in git to compare with.")
@click.option("--update-baseline", is_flag=True, help="Write the baseline from this artifact on this machine.")
@click.option("--reference", type=PATH, help="With --update-baseline: the model that the artifact was built from.")
@click.option("--tokenizer", type=PATH, help="tokenizer.json of the reference, if it is a bare checkpoint file.")
@click.option("--data", type=PATH, help="Evaluation text; use the same one as for the baseline.")
@text_field_option
@click.option("--threads", type=THREADS, default=1)
@runtime_option
@click.option("--tolerance", "tolerances", multiple=True, help="Tolerated regression: latency=10%. Repeatable.")
@click.option("--junit", "junit_path", type=PATH, help="Write JUnit XML to this file.")
@click.option("--summary", type=PATH, help="Add a Markdown table to this file; GITHUB_STEP_SUMMARY otherwise.")
@click.option("--annotations", "annotate", is_flag=True, help="Print GitHub's ::error lines, ten at most.")
@click.option("--benchmark-json", "chart_path", type=PATH, help="Write github-action-benchmark's JSON to this file.")
@on_boards
@run_options
@signature_option
@command
def gate_command(
    console: Console, artifact: Path, baseline_path: Path, update_baseline: bool, reference: Path | None,
    tokenizer: Path | None, data: Path | None, text_field: str | None, threads: int, runtime: str,
    tolerances: tuple[str, ...], junit_path: Path | None, summary: Path | None, annotate: bool,
    chart_path: Path | None, on: tuple[str, ...], **place: Any,
) -> int:  # fmt: skip
    """Compare an ARTIFACT with a baseline: size, layers, quality, parity, memory, latency; exit code 3 if worse.

    With --on given several times the baseline holds figures of each board, and the artifact is compared on all of them.
    """
    allowed = parse_tolerances(tolerances)
    places = [ExecutionOptions(on=name, **place) for name in dict.fromkeys(on)] or [ExecutionOptions(**place)]
    if reference is not None and not update_baseline:
        raise SlmcError("--reference is for --update-baseline: the baseline keeps what it needs of the model")
    summary = summary or _step_summary()
    for path, kind in ((junit_path, JUNIT), (chart_path, CHART)):
        if path is not None:
            check_output_file(path, kind, force=True)
    runs = [
        _Run(
            console=console, where=where, artifact=artifact, data=data, text_field=text_field, threads=threads,
            runtime=runtime,
        )
        for where in places
    ]  # fmt: skip
    if update_baseline:
        check_output_file(baseline_path, BASELINE, force=True)
        baseline = _new_baseline(runs, reference, tokenizer)
        write_whole(baseline_path, baseline.to_json())
        console.result({"baseline": str(baseline_path)}, f"{baseline_path}: written; commit it")
        return 0
    baseline = read_baseline(baseline_path)
    checks = [
        dataclasses.replace(check, name=f"{check.name} on {run.where.on}") if len(runs) > 1 else check
        for run in runs
        for check in _checks(run, baseline, baseline_path, allowed)
    ]
    for path, text in ((junit_path, junit(artifact.name, checks)), (chart_path, benchmark_json(artifact.name, checks))):
        if path is not None:
            write_whole(path, text)
    if summary is not None:
        with summary.open("a", encoding="utf-8") as file:
            file.write(markdown(artifact.name, checks))
    return _say(console, artifact, baseline_path, checks, annotate=annotate)


@dataclass(frozen=True)
class _Run:
    """What is run, and how."""

    console: Console
    where: ExecutionOptions
    artifact: Path
    data: Path | None
    text_field: str | None
    threads: int
    runtime: str

    def text(self, manifest: Manifest) -> Text:
        vocabulary = artifact_session(self.artifact, manifest.io, native=self.runtime != STOCK).vocabulary
        return artifact_text(self.artifact, manifest, self.data, vocabulary, self.text_field).head(TEXT_TOKENS)

    def visit(self, manifest: Manifest) -> AbstractContextManager[ExecutionTarget]:
        return execution_target(self.where, self.console, self.artifact, manifest, runtime=self.runtime, speed=True)

    def measure(self, target: ExecutionTarget, text: Text, context: int | None) -> tuple[Measurement, ...]:
        return measure_speed(target, text, context, threads=self.threads, progress=self.console.progress)


def _new_baseline(runs: Sequence[_Run], reference: Path | None, tokenizer: Path | None) -> Baseline:
    """The artifact as it is today; its best tokens, or the fp32 model's, are what agreement is counted against."""
    run = runs[0]
    manifest = open_artifact(run.artifact)
    text = run.text(manifest)
    model = reference_model(reference, tokenizer, run.artifact, manifest) if reference else None
    tokens = () if model is None else tuple(predictions(model.forward, text.reading)[1].tolist())
    found = []
    for run in runs:
        with run.visit(manifest) as target:
            readings = evaluate_artifact(target, text, threads=run.threads)
            tokens = tokens or readings.own.best
            found.append(figures(manifest, text, readings, tokens, run.measure(target, text, manifest.io.context)))
    producer, whose = Producer("slmc", version("slmc")), ARTIFACT if model is None else MODEL
    return Baseline(
        schema_version=SCHEMA_VERSION,
        producer=producer,
        created=now(),
        artifact=run.artifact.name,
        reference=whose,
        reference_tokens=packed(tokens),
        figures=found[0],
        boards=tuple(found[1:]),
    )


def _checks(run: _Run, baseline: Baseline, path: Path, allowed: Tolerances) -> tuple[Check, ...]:
    try:
        manifest = open_artifact(run.artifact)
    except SlmcError as error:
        if not (run.artifact / MANIFEST_NAME).is_file():
            raise
        return (Check(name="files", status=FAILED, before="", now="", why=str(error)),)
    text, before = run.text(manifest), baseline.figures
    if (text.sha256, len(text.ids)) != (before.text.sha256, before.text.tokens):
        raise SlmcError(
            f"{path}: written with {before.text.tokens} tokens of {before.text.name}, not with those of {text.name} as "
            "this artifact's tokenizer splits it; give that text with --data, or write the baseline again"
        )
    with run.visit(manifest) as target:
        readings = evaluate_artifact(target, text, threads=run.threads)
        found = figures(
            manifest,
            text,
            readings,
            unpacked(baseline.reference_tokens, path),
            run.measure(target, text, manifest.io.context),
        )
        compared = Compared(
            baseline.on(found.machine),
            found,
            allowed,
            again=lambda: speed(run.measure(target, text, manifest.io.context)),
        )
        promised = judged(run.artifact, manifest, found_by(text, readings))
        promises = [_promise_check(promise) for promise in promised if promise.status != NOT_COMPARED]
        return (
            Check(name="files", status=PASSED, before="", now="", why="all listed, unaltered, and no others"),
            *run_checks(compared),
            *promises,
        )


def _promise_check(promise: Promise) -> Check:
    """One promise of the artifact's own manifest as a check."""
    status = PASSED if promise.status == KEPT else FAILED
    why = f"as the manifest says, within {promise.tolerance}; margin {promise.margin}"
    return Check(name=f"promised {promise.name}", status=status, before=promise.promised, now=promise.found, why=why)


def _say(console: Console, artifact: Path, baseline: Path, checks: Sequence[Check], *, annotate: bool) -> int:
    failed = [check.name for check in checks if check.status == FAILED]
    rows = [(c.name, c.status, c.before, c.now, c.why) for c in checks]
    console.table(f"{artifact} against {baseline}", ("check", "", "before", "now", "why"), rows)
    if annotate:
        for line in annotation_lines(artifact.name, checks):
            click.echo(line, err=console.as_json)
    document = {
        "artifact": str(artifact), "baseline": str(baseline), "failed": failed,
        "checks": [dataclasses.asdict(check) for check in checks],
    }  # fmt: skip
    console.result(document, f"worse than the baseline: {', '.join(failed)}" if failed else "no regression")
    return GATE_FAILED if failed else 0


def _step_summary() -> Path | None:
    """Where a GitHub workflow collects summaries; None elsewhere."""
    path = os.environ.get(STEP_SUMMARY)
    return Path(path) if path else None
