"""What is written down of a finished artifact: its manifest and its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from exporters.artifact.manifest import (
    SCHEMA_VERSION,
    Bytes,
    Constraint,
    Manifest,
    Measured,
    Parity,
    Producer,
    Quality,
    RecipeEntry,
    Source,
)
from exporters.export import ExportedGraph
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from targets.cpus.energy import Activity
from toolchain.delivery import package
from toolchain.delivery.reports.data import LayerRow, Predicted, Report
from toolchain.delivery.validate import constraint
from toolchain.model.catalog import LoadedModel
from toolchain.search.plan import Plan, Requirements, recipe_bytes


@dataclass(frozen=True)
class Sample:
    """What the artifact makes of a text, for the report; the text itself comes first."""

    prompt: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What delivery found out about an artifact. everywhere: measured on every machine that counts, one or more."""

    parity: Parity
    quality: Quality
    everywhere: tuple[Measured, ...]
    sample: Sample
    predicted: Predicted | None
    activity: Mapping[str, Activity]

    @property
    def measured(self) -> Measured:
        """On the slowest of these machines."""
        return max(self.everywhere, key=lambda speed: speed.decode_ms.p50)


def manifest_of(
    model: LoadedModel, plan: Plan, graph: ExportedGraph, findings: Findings, later: Mapping[str, str]
) -> Manifest:
    """The manifest, its list of files still empty.

    later: what was done with layers after their method, by path: '+refined', '+tuned', or both.
    """
    tree = model.tree
    weights, states = recipe_bytes(plan.recipe, tree), tree.stored_state_bytes
    recipe = {}
    for layer in tree.layers:
        config = plan.recipe[layer.path]
        size = bytes_for(format_named(config.format), layer.rows, layer.cols)
        method = config.method + later.get(layer.path, "")
        recipe[layer.path] = RecipeEntry(
            format=config.format,
            method=method,
            activations=config.activations,
            bytes=size,
            bits_per_weight=round(8 * size / layer.params, 4),
        )
    return Manifest(
        schema_version=SCHEMA_VERSION,
        producer=Producer("slmc", version("slmc")),
        created=package.now(),
        source=Source(model.name, tree.family, model.sha256, tree.params, model.origin),
        io=graph.io,
        recipe=recipe,
        bytes=Bytes(
            weights=weights,
            weights_fp32=4 * tree.params,
            states=states,
            file=graph.graph_bytes + graph.data_bytes,
            states_fp32=None if model.kv_cache == "fp32" else tree.exact_state_bytes,
        ),
        quality=findings.quality,
        parity=findings.parity,
        measured=findings.measured,
        constraints=_constraints(plan.requirements, weights + states, findings),
        files={},
        text=model.rules,
    )


def _constraints(asked: Requirements, stored_bytes: int, findings: Findings) -> tuple[Constraint, ...]:
    speed = findings.measured
    model_rss = max(found.rss_peak_bytes - found.rss_baseline_bytes for found in findings.everywhere)
    return tuple(
        constraint("max_memory", asked.max_bytes, stored_bytes, "bytes")
        + constraint("max_drop", asked.max_drop, findings.quality.relative_drop, "relative")
        + constraint("max_latency", asked.max_latency_ms, speed.decode_ms.p50, "ms")
        + constraint("max_rss", asked.max_rss_bytes, model_rss, "bytes")
    )


def report_of(model: LoadedModel, plan: Plan, manifest: Manifest, findings: Findings) -> Report:
    """The report of an artifact, and of the search behind its plan."""
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
            nonzero=seen.nonzero if (seen := findings.activity.get(layer.path)) else None,
            spikes=seen.spikes if seen else False,
            counts=layer.counts,
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
        transformations=plan.transformations,
        texts=plan.texts.text() if plan.texts else "",
    )
