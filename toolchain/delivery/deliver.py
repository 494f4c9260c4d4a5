"""From a plan to an artifact: compress, export, validate on ONNX Runtime, measure, report, and put it in place."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import cast

from torch import nn

from exporters.artifact.errors import NotAvailable
from exporters.artifact.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Bytes,
    ClassScores,
    Constraint,
    Manifest,
    Measured,
    Parity,
    Producer,
    Quality,
    RecipeEntry,
    Source,
)
from exporters.artifact.text_rules import TextRules
from exporters.export import ExportedGraph, export_graph
from exporters.formats.base import Encoded, bytes_for
from exporters.formats.catalog import format_named
from exporters.graph_nodes import read_workload
from exporters.ops.layers import Biased, shared_look_up
from exporters.ops.modules import stored_module
from targets.cpus.catalog import named_cpu
from targets.cpus.cost import predict
from targets.device.session import Session
from toolchain.compress.recipe import ACTIVATION_BITS, Recipe
from toolchain.delivery import package
from toolchain.delivery.generation import Sampling, classified, continuation, prompt_ids, shares_text
from toolchain.delivery.operators import build_ids
from toolchain.delivery.reports.catalog import REPORTS
from toolchain.delivery.reports.data import LayerRow, Predicted, Report
from toolchain.delivery.validate import (
    artifact_session,
    constraint,
    measured,
    measurement,
    parity,
    quality,
)
from toolchain.files.progress import Progress
from toolchain.model.cache import CachedModel
from toolchain.model.catalog import LoadedModel
from toolchain.model.classifier import Classifier
from toolchain.model.family import LanguageModel
from toolchain.model.text import Text
from toolchain.model.tree import ModelTree
from toolchain.quality.accuracy import AnyReference
from toolchain.search.plan import Plan, Requirements, recipe_bytes

SAMPLE_PROMPT = "The old bridge over the river was"
SAMPLE_TOKENS = 80
STEPS = ("compress", "export", "parity", "quality", "measurement", "report")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where an artifact goes and what it is measured for.

    staging: a folder that does not exist yet, on the output's file system. libraries: compiled operators by platform.
    configuration: the resolved options, as YAML. seed: of the sample of text.
    """

    staging: Path
    output: Path
    force: bool
    libraries: Mapping[str, Path]
    configuration: str
    target: str
    threads: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """What stands at the end: the artifact's folder, its manifest, the report, and why to doubt the measured times."""

    folder: Path
    manifest: Manifest
    report: Report
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Sample:
    """What the artifact makes of a text, for the report; the text itself comes first."""

    prompt: str
    text: str


@dataclass(frozen=True, kw_only=True)
class _Findings:
    parity: Parity
    quality: Quality
    measured: Measured
    sample: _Sample
    predicted: Predicted | None


def deliver(
    model: LoadedModel, plan: Plan, encoded: Mapping[str, Encoded], reference: AnyReference, evaluation: Text,
    destination: Destination, progress: Progress, *, tuned: bool = False,
) -> Delivered:  # fmt: skip
    """Carry a plan out.

    Args:
        encoded: every layer as the plan stores it.
        reference: the fp32 model's predictions on the evaluation text.
        tuned: whether linear layers were tuned after they were compressed.

    Raises:
        SlmcError: a step failed; nothing is left at the output.
    """
    steps = itertools.count(1)

    def done(step: str) -> None:
        progress(f"delivery: {step}", next(steps), len(STEPS))

    staging, threads = destination.staging, destination.threads
    module = stored_model(model, encoded, plan.recipe)
    done("compress")
    staging.mkdir(parents=True)
    carried = cast(LanguageModel, module)
    weight_bytes = recipe_bytes(plan.recipe, model.tree)
    graph = export_graph(module, carried.state_specs(), staging, weight_bytes, carried.context, _scores(model))
    package.add_companions(staging, model.tokenizer_path, destination.libraries, model.left_out)
    done("export")
    session = artifact_session(staging, graph.io, threads=threads)
    agreement = parity(session, carried, evaluation.reading)
    done("parity")
    found = quality(session, reference, evaluation)
    sample = _sample(session, model, evaluation, destination.seed)
    vocabulary = session.vocabulary
    del session
    done("quality")
    result = measurement(staging, graph.io, evaluation, vocabulary, threads=threads)
    speed = measured(result, destination.target, bytes_per_token(model.tree, encoded))
    done("measurement")
    predicted = _predicted(staging, destination.target, threads)
    findings = _Findings(parity=agreement, quality=found, measured=speed, sample=sample, predicted=predicted)
    manifest = dataclasses.replace(
        _manifest(model, plan, graph, findings, tuned=tuned), operators=build_ids(destination.libraries)
    )
    report = _report(model, plan, manifest, findings)
    manifest = _write(staging, destination.configuration, plan, manifest, report)
    done("report")
    package.publish(staging, destination.output, force=destination.force)
    return Delivered(folder=destination.output, manifest=manifest, report=report, doubts=result.doubts)


def stored_model(model: LoadedModel, encoded: Mapping[str, Encoded], recipe: Recipe) -> nn.Module:
    """The model with every layer replaced by a module over its stored planes; vectors are shared with the original."""
    tensors = {id(t): t for t in (*model.module.parameters(), *model.module.buffers())}
    module = copy.deepcopy(model.module, memo=tensors)
    for layer in model.tree.layers:
        bits = ACTIVATION_BITS[recipe[layer.path].activations]
        bias = getattr(module.get_submodule(layer.path), "bias", None)
        kind = "linear" if layer.kind == "linear" else "embedding"
        stored = stored_module(encoded[layer.path], kind, bits)
        module.set_submodule(layer.path, stored if bias is None else Biased(stored, bias))
        if layer.table:
            module.set_submodule(layer.table, shared_look_up(stored, encoded[layer.path]))
    if isinstance(module, CachedModel):
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


def _predicted(staging: Path, target: str, threads: int) -> Predicted | None:
    """Time per token by the target's file, to stand beside the measured one; None where it says too little."""
    try:
        found = predict(named_cpu(target), read_workload(staging / "model.onnx"), threads)
    except NotAvailable:
        return None
    return Predicted(found.decode_ms, found.basis)


def _sample(session: Session, model: LoadedModel, evaluation: Text, seed: int) -> _Sample:
    """Text that goes on from a prompt, or the classes of the first sentence that it was judged on."""
    tokenizer, sentences = model.tokenizer, evaluation.sentences
    if sentences is None:
        rules = model.rules or TextRules()
        read = prompt_ids(tokenizer, rules, SAMPLE_PROMPT)
        text = continuation(session, tokenizer, read, SAMPLE_TOKENS, Sampling(seed=seed), rules)
        return _Sample(SAMPLE_PROMPT, tokenizer.decode(read) + "".join(text))
    ids = sentences.each()[0].tolist()
    return _Sample(said := tokenizer.decode(ids), f"{said}\n\n{shares_text(classified(session, ids))}")


def _constraints(asked: Requirements, stored_bytes: int, findings: _Findings) -> tuple[Constraint, ...]:
    speed = findings.measured
    model_rss = speed.rss_peak_bytes - speed.rss_baseline_bytes
    return tuple(
        constraint("max_memory", asked.max_bytes, stored_bytes, "bytes")
        + constraint("max_drop", asked.max_drop, findings.quality.relative_drop, "relative")
        + constraint("max_latency", asked.max_latency_ms, speed.decode_ms.p50, "ms")
        + constraint("max_rss", asked.max_rss_bytes, model_rss, "bytes")
    )


def _manifest(model: LoadedModel, plan: Plan, graph: ExportedGraph, findings: _Findings, *, tuned: bool) -> Manifest:
    tree = model.tree
    weights, states = recipe_bytes(plan.recipe, tree), tree.stored_state_bytes
    recipe = {}
    for layer in tree.layers:
        choice = plan.recipe[layer.path]
        size = bytes_for(format_named(choice.format), layer.rows, layer.cols)
        method = f"{choice.method}+tuned" if tuned and layer.kind == "linear" else choice.method
        recipe[layer.path] = RecipeEntry(
            choice.format, method, choice.activations, size, round(8 * size / layer.params, 4)
        )
    return Manifest(
        schema_version=SCHEMA_VERSION,
        producer=Producer("slmc", version("slmc")),
        created=package.now(),
        source=Source(model.name, tree.family, model.sha256, tree.params),
        io=graph.io,
        recipe=recipe,
        bytes=Bytes(
            weights,
            4 * tree.params,
            states,
            graph.graph_bytes + graph.data_bytes,
            None if model.kv_cache == "fp32" else tree.exact_state_bytes,
        ),
        quality=findings.quality,
        parity=findings.parity,
        measured=findings.measured,
        constraints=_constraints(plan.requirements, weights + states, findings),
        files={},
        text=model.rules,
    )


def _report(model: LoadedModel, plan: Plan, manifest: Manifest, findings: _Findings) -> Report:
    rows = tuple(
        LayerRow(
            path=layer.path,
            block=block.path,
            rows=layer.rows,
            cols=layer.cols,
            format=plan.recipe[layer.path].format,
            method=plan.recipe[layer.path].method,
            bytes=manifest.recipe[layer.path].bytes,
            bytes_fp32=layer.bytes_fp32,
            activations=plan.recipe[layer.path].activations,
        )
        for block in model.tree.blocks
        for layer in block.layers
    )
    return Report(
        manifest=manifest,
        layers=rows,
        points=plan.candidates,
        sensitivities=plan.sensitivities,
        max_bytes=plan.requirements.max_bytes,
        max_drop=plan.requirements.max_drop,
        objective=plan.objective,
        sample_prompt=findings.sample.prompt,
        sample_text=findings.sample.text,
        families=plan.families,
        screening=plan.screening.text() if plan.screening else "",
        predicted=findings.predicted,
    )


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
