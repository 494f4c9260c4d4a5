"""From a plan to an artifact: compress, export, validate on ONNX Runtime, measure, report, and put it in place."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import nn

from exporters.artifact.errors import NotAvailable
from exporters.artifact.manifest import MANIFEST_NAME, ClassScores, Manifest
from exporters.artifact.text_rules import TextRules
from exporters.export import ExportedGraph, export_graph
from exporters.formats.base import Encoded
from exporters.graph_nodes import read_workload
from exporters.ops.layers import Biased, shared_look_up
from exporters.ops.modules import stored_module
from targets.cpus.cost import predict
from targets.cpus.energy import Activity
from targets.cpus.spec import Cpu
from targets.device.session import Session
from toolchain.compress.recipe import ACTIVATION_BITS, Recipe
from toolchain.delivery import package
from toolchain.delivery.boards import Measurer, OnCpu
from toolchain.delivery.documents import Findings, Sample, manifest_of, report_of
from toolchain.delivery.generation import Sampling, classified, continuation, prompt_ids, shares_text
from toolchain.delivery.operators import build_ids
from toolchain.delivery.own_runtime import own_runtime
from toolchain.delivery.reports.catalog import REPORTS
from toolchain.delivery.reports.data import Predicted, Report
from toolchain.delivery.validate import artifact_session, measured, parity, quality
from toolchain.files.progress import Progress
from toolchain.model.cache import KeyValueModel
from toolchain.model.catalog import LoadedModel
from toolchain.model.classifier import Classifier
from toolchain.model.family import LanguageModel
from toolchain.model.sharing import sharing_copy
from toolchain.model.text import Text
from toolchain.model.tree import ModelTree
from toolchain.quality.accuracy import AnyReference
from toolchain.search.outcome import RoundResult
from toolchain.search.plan import Plan, recipe_bytes

SAMPLE_PROMPT = "The old bridge over the river was"
SAMPLE_TOKENS = 80
STEPS = ("compress", "export", "parity", "quality", "measurement", "report")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where an artifact goes and what it is measured for.

    staging: a folder that does not exist yet, on the output's file system. libraries: compiled operators by platform.
    programs: slmc-run likewise, whose tokenizer is compared on the calibration text and the one of evaluation.
    configuration: the resolved options, as YAML. seed: of the sample of text. measurer: where speed and memory are
    measured.
    """

    staging: Path
    output: Path
    force: bool
    libraries: Mapping[str, Path]
    programs: Mapping[str, Path]
    calibration: Text | None
    configuration: str
    measurer: Measurer
    threads: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """The result: the artifact's folder, its manifest and report, reasons to doubt the measured times, and what boards
    said while it was sought."""

    folder: Path
    manifest: Manifest
    report: Report
    doubts: tuple[str, ...] = ()
    rounds: tuple[RoundResult, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Staged:
    """A model that was exported into the staging folder, with what goes along; neither proved nor measured yet.

    carried: the same in torch.
    """

    graph: ExportedGraph
    carried: LanguageModel


def stage(
    model: LoadedModel, plan: Plan, encoded: Mapping[str, Encoded], destination: Destination, progress: Progress
) -> Staged:
    """Export a model, every layer as the plan stores it."""
    staging, done = destination.staging, _steps(progress, 1)
    module = stored_model(model, encoded, plan.recipe)
    done("compress")
    staging.mkdir(parents=True)
    carried = cast(LanguageModel, module)
    weight_bytes = recipe_bytes(plan.recipe, model.tree)
    scores, head = _scores(model), model.tree.head or model.tree.layers[-1].path
    graph = export_graph(
        module, carried.state_specs(), staging, weight_bytes, carried.context, scores, None if scores else head
    )
    package.add_companions(staging, model.tokenizer_json, destination.libraries, model.left_out, destination.programs)
    done("export")
    return Staged(graph=graph, carried=carried)


def measure_staged(model: LoadedModel, staged: Staged, evaluation: Text, destination: Destination) -> tuple[OnCpu, ...]:
    """Speed and memory of what was exported, on every machine that counts."""
    return destination.measurer.measure(
        destination.staging, staged.graph.io, evaluation, model.tree.vocabulary, destination.threads
    )


def deliver(
    model: LoadedModel, plan: Plan, encoded: Mapping[str, Encoded], reference: AnyReference, evaluation: Text,
    destination: Destination, progress: Progress, *, activity: Mapping[str, Activity],
    later: Mapping[str, str] | None = None, staged: Staged | None = None,
) -> Delivered:  # fmt: skip
    """Carry a plan out.

    Args:
        encoded: every layer as the plan stores it.
        reference: the fp32 model's predictions on the evaluation text.
        activity: of the linear layers' inputs, on the calibration text.
        later: what was done with layers after they were compressed, by path; see `manifest_of`.
        staged: what lies in the staging folder already, exported from this very plan.

    Raises:
        SlmcError: a step failed; nothing is left at the output.
    """
    staged = staged or stage(model, plan, encoded, destination, progress)
    staging, threads, done, graph = destination.staging, destination.threads, _steps(progress, 3), staged.graph
    session = artifact_session(staging, graph.io, threads=threads)
    agreement = parity(session, staged.carried, evaluation.reading)
    done("parity")
    found = quality(session, reference, evaluation)
    sample = _sample(session, model, evaluation, destination.seed)
    del session
    done("quality")
    results = measure_staged(model, staged, evaluation, destination)
    read_bytes = bytes_per_token(model.tree, encoded)
    speeds = tuple(measured(result.measurement, result.cpu, read_bytes) for result in results)
    slowest = max(results, key=lambda result: result.measurement.decode_ms.p50)
    done("measurement")
    findings = Findings(
        parity=agreement, quality=found, everywhere=speeds, sample=sample,
        predicted=_predicted(staging, slowest.cpu, threads), activity=activity,
    )  # fmt: skip
    manifest = dataclasses.replace(
        manifest_of(model, plan, graph, findings, later or {}), operators=build_ids(destination.libraries)
    )
    if destination.programs:
        texts = [text for text in (destination.calibration, evaluation) if text is not None]
        manifest = dataclasses.replace(
            manifest,
            slmc_run=own_runtime(
                staging, manifest, model.tokenizer, texts, model.tree.vocabulary, threads=threads,
                weight_bytes_per_token=read_bytes,
            ),
        )  # fmt: skip
    report = report_of(model, plan, manifest, findings)
    manifest = _write(staging, destination.configuration, plan, manifest, report)
    done("report")
    package.publish(staging, destination.output, force=destination.force)
    doubts = tuple(dict.fromkeys(doubt for result in results for doubt in _doubts(result)))
    return Delivered(folder=destination.output, manifest=manifest, report=report, doubts=doubts, rounds=plan.rounds)


def _doubts(result: OnCpu) -> tuple[str, ...]:
    return result.measurement.doubts_beside(result.cpu.wait or 1.0)


def _steps(progress: Progress, first: int) -> Callable[[str], None]:
    """Progress of delivery, step by step from a first one on."""
    steps = itertools.count(first)
    return lambda step: progress(f"delivery: {step}", next(steps), len(STEPS))


def stored_model(model: LoadedModel, encoded: Mapping[str, Encoded], recipe: Recipe) -> nn.Module:
    """The model with every layer replaced by a module over its stored tensors; vectors are shared with the original."""
    module = sharing_copy(model.module)
    for layer in model.tree.layers:
        bits = ACTIVATION_BITS[recipe[layer.path].activations]
        bias = getattr(module.get_submodule(layer.path), "bias", None)
        kind = "linear" if layer.kind == "linear" else "embedding"
        stored = stored_module(encoded[layer.path], kind, bits)
        module.set_submodule(layer.path, stored if bias is None else Biased(stored, bias))
        if layer.table:
            module.set_submodule(layer.table, shared_look_up(stored, encoded[layer.path]))
    if isinstance(module, KeyValueModel):
        module.kv_cache = model.kv_cache
    return module.eval()


def _scores(model: LoadedModel) -> ClassScores | None:
    """What the graph of a classifier gives in the place of logits."""
    module = model.module
    if not isinstance(module, Classifier):
        return None
    return ClassScores(module.classes.labels, model.tree.vocabulary, module.whole_texts)


def bytes_per_token(tree: ModelTree, encoded: Mapping[str, Encoded]) -> int:
    """Bytes of weights that one generated token reads: all of them, but one row only of an embedding."""
    total = 4 * tree.vector_params
    for layer in tree.layers:
        size = encoded[layer.path].nbytes
        total += size if layer.kind == "linear" else size // layer.rows
    return total


def _predicted(staging: Path, cpu: Cpu, threads: int) -> Predicted | None:
    """Predicted time per token on the target, to compare with the measured one; None without measured costs."""
    try:
        found = predict(cpu, read_workload(staging / "model.onnx"), threads)
    except NotAvailable:
        return None
    return Predicted(found.decode_ms, found.basis)


def _sample(session: Session, model: LoadedModel, evaluation: Text, seed: int) -> Sample:
    """Text that goes on from a prompt, or the classes of the first sentence that it was judged on."""
    tokenizer, sentences = model.tokenizer, evaluation.sentences
    if sentences is None:
        rules = model.rules or TextRules()
        read = prompt_ids(tokenizer, rules, SAMPLE_PROMPT)
        text = continuation(session, tokenizer, read, SAMPLE_TOKENS, Sampling(seed=seed), rules)
        return Sample(SAMPLE_PROMPT, tokenizer.decode(read) + "".join(text))
    ids = sentences.each()[0].tolist()
    return Sample(sentence := tokenizer.decode(ids), f"{sentence}\n\n{shares_text(classified(session, ids))}")


def _write(staging: Path, configuration: str, plan: Plan, manifest: Manifest, report: Report) -> Manifest:
    """Every text of the artifact; the manifest, which lists the others, comes last."""
    (staging / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    (staging / "config.resolved.yaml").write_text(configuration, encoding="utf-8")
    for kind in ("html", "json"):
        suffix, render = REPORTS[kind]
        (staging / f"report{suffix}").write_text(render(report), encoding="utf-8")
    manifest = dataclasses.replace(manifest, files=package.write_sums(staging))
    (staging / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    package.write_sums(staging)
    return manifest
