"""From what the user asked to what the stages need: model, texts, requirements, the options of every layer."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import ACCURACY, PERPLEXITY
from exporters.formats.catalog import format_named, formats_matching
from exporters.formats.dense import FP16, FP32
from targets.cpus.catalog import named_cpu
from targets.device.quantities import bytes_text, parse_bytes, parse_seconds, parse_share
from toolchain.compress.catalog import method_named
from toolchain.compress.recipe import Recipe
from toolchain.delivery.operators import operator_libraries, runtime_programs
from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.family import ModelOptions
from toolchain.model.layer_names import layers_named
from toolchain.model.offloading import bytes_in_memory
from toolchain.model.text import Text, read_judged, read_sentences, read_text
from toolchain.model.text_distance import TextDistance, text_distance
from toolchain.model.tree import ModelTree
from toolchain.pipeline.room import check_room
from toolchain.pipeline.spec import Spec, result_options
from toolchain.search.activations import asked_activations
from toolchain.search.plan import Plan, PlanSource, Requirements
from toolchain.search.problem import METHOD_MARK, Constraints, Effort, Problem, effort_named, layer_options
from toolchain.transform.shuffle import parse_pattern
from toolchain.transform.transformation import Transformation


@dataclass(frozen=True, kw_only=True)
class Job:
    """A build or an export, checked before any work starts.

    calibration, evaluation: the texts, as far as they are read. problem: what the search may choose from; of an export,
    the plan's recipe alone. method: of rounding to integers. transformations: what is decided, None before calibration.
    """

    spec: Spec
    model: LoadedModel
    calibration: Text
    evaluation: Text
    requirements: Requirements
    problem: Problem
    method: str
    libraries: Mapping[str, Path]
    programs: Mapping[str, Path]
    transformations: tuple[Transformation, ...] | None = None

    @property
    def texts(self) -> TextDistance:
        """How far what is calibrated on and what is judged on are apart."""
        return text_distance(self.calibration.ids, self.evaluation.ids, self.model.tree.vocabulary)

    def plan_source(self) -> PlanSource:
        return PlanSource(
            model_sha256=self.model.sha256,
            calibration_sha256=self.calibration.sha256,
            calibration_tokens=len(self.calibration.ids),
            options=result_options(self.spec) | {"context": self.model.forward.context},
            requirements=self.requirements,
            transformations=self.transformations or (),
            texts=self.texts,
        )

    def inputs(self) -> dict[str, Any]:
        """What the result depends on: a resumed build must have the same."""
        return {
            **result_options(self.spec),
            **dataclasses.asdict(self.requirements),
            "context": self.model.forward.context,
            "method": self.method,
            "model": self.model.sha256,
            "calibration": self.calibration.sha256,
            "evaluation": self.evaluation.sha256,
            "options": {
                path: [f"{c.format}{METHOD_MARK}{c.method}" for c in options]
                for path, options in self.problem.options.items()
            },
            "slmc": version("slmc"),
        }


def read_calibration(spec: Spec, model: LoadedModel, piece: int | None = None) -> Text:
    """The whole text that methods look at, in pieces of so many tokens, the model's context if not given; of a
    classifier, sentences, whose labels do not matter."""
    if model.classes is None:
        text = spec.calibration or SHIPPED_TEXTS / "calibration.txt"
        return read_text(text, model.tokenizer, piece or model.forward.context, spec.text_field)
    path = spec.calibration or spec.eval
    if path is None:
        raise SlmcError("a classifier is judged on labelled sentences of yours: give --eval FILE.tsv")
    labels = model.classes.labels
    return read_sentences(path, model.tokenizer, labels, model.forward.context, spec.text_field, labelled=False)


def read_evaluation(spec: Spec, model: LoadedModel) -> Text:
    """The text, or labelled sentences, that candidates are judged on."""
    if model.classes is None:
        text = spec.eval or SHIPPED_TEXTS / "evaluation.txt"
        return read_text(text, model.tokenizer, model.forward.context, spec.text_field)
    labels = model.classes.labels
    return read_judged(spec.eval, model.tokenizer, labels, model.forward.context, "--eval", spec.text_field)


def check_metric(metric: str | None, *, classifier: bool) -> None:
    """Refuse a metric that is not the model's: accuracy of a classifier, perplexity of any other.

    Raises:
        SlmcError: it is the other one, or none.
    """
    own, kind = (ACCURACY, "a classifier") if classifier else (PERPLEXITY, "a language model")
    if metric not in (None, own):
        raise SlmcError(f"--metric {metric}: this model is {kind}, and its metric is {own}")


def prepare(spec: Spec) -> Job:
    """Read and check everything that the user gave.

    Raises:
        SlmcError: the first thing that is wrong.
    """
    effort = effort_named(spec.effort)
    method = method_named(spec.method or effort.method).name
    formats = formats_matching(spec.formats or effort.formats)
    named_cpu(spec.target)
    if spec.shuffle is not None:
        parse_pattern(spec.shuffle)
    torch.set_num_threads(spec.threads)
    room = parse_bytes(spec.max_build_memory, "--max-build-memory") if spec.max_build_memory is not None else None
    model = load_model(spec.model, spec.tokenizer, ModelOptions(spec.context, spec.kv_cache, spec.family), room)
    spec = spec.model_copy(update={"family": model.tree.family})
    _refuse_from_disk(spec, model)
    check_metric(spec.metric, classifier=model.classes is not None)
    requirements = _requirements(spec, model.tree.bytes_fp32)
    pins = pinned_formats(spec.layer, model.tree)
    options = layer_options(model.tree, formats, pins, method)
    constraints = Constraints(requirements.max_bytes, requirements.max_drop)
    wider = () if spec.formats else _wider(model.tree, effort, pins, method)
    problem = Problem(
        tree=model.tree,
        options=options,
        constraints=constraints,
        effort=effort,
        seed=spec.seed,
        activations=asked_activations(spec.activations, model.tree),
        wider=wider,
    )
    every = functools.partial(layer_options, model.tree, formats_matching(("*",)), pins, method)
    check_room(spec.max_memory or "", problem, model, every)
    return Job(
        spec=spec,
        model=model,
        calibration=read_calibration(spec, model).head(effort.calibration_tokens),
        evaluation=read_evaluation(spec, model).head(effort.evaluation_tokens),
        requirements=requirements,
        problem=problem,
        method=method,
        libraries=operator_libraries(spec.native),
        programs=runtime_programs(spec.runtime),
    )


def of_plan(job: Job, plan: Plan) -> Job:
    """The job that carries a plan out: its texts as the search read them, its requirements, its recipe alone."""
    constraints = Constraints(plan.requirements.max_bytes, plan.requirements.max_drop)
    recipe = {path: (config,) for path, config in plan.recipe.items()}
    return dataclasses.replace(
        job,
        calibration=job.calibration.head(plan.calibration_tokens),
        requirements=plan.requirements,
        transformations=plan.transformations,
        problem=dataclasses.replace(job.problem, constraints=constraints, options=recipe),
    )


def with_tree(job: Job, tree: ModelTree, transformations: tuple[Transformation, ...]) -> Job:
    """The job of a transformed model. Layers that the model did not have before get options too."""
    problem = dataclasses.replace(job.problem, tree=tree)
    if any(layer.path not in problem.options for layer in tree.layers):
        spec, effort = job.spec, job.problem.effort
        pins = pinned_formats(spec.layer, tree)
        options = layer_options(tree, formats_matching(spec.formats or effort.formats), pins, job.method)
        wider = _wider(tree, effort, pins, job.method) if problem.wider else ()
        problem = dataclasses.replace(problem, options=options | dict(problem.options), wider=wider)
    return dataclasses.replace(job, problem=problem, transformations=transformations)


def _requirements(spec: Spec, whole_bytes: int) -> Requirements:
    """What the finished artifact must hold; whole_bytes: of the fp32 model, which percentages refer to."""
    return Requirements(
        max_bytes=parse_bytes(spec.max_memory, "--max-memory", whole_bytes) if spec.max_memory is not None else None,
        max_drop=parse_share(spec.max_drop, "--max-drop") if spec.max_drop is not None else None,
        max_latency_ms=parse_seconds(spec.max_latency, "--max-latency") * 1e3 if spec.max_latency is not None else None,
        max_rss_bytes=parse_bytes(spec.max_rss, "--max-rss", whole_bytes) if spec.max_rss is not None else None,
    )


def _refuse_from_disk(spec: Spec, model: LoadedModel) -> None:
    """What changes a model's own matrices, or learns them, needs them in memory."""
    for option, given in (("tune", spec.tune), ("shuffle", spec.shuffle)):
        if given and model.weight_storage == "disk":
            raise SlmcError(
                f"--{option} needs the whole model in memory, {bytes_text(bytes_in_memory(model.tree))}, which there "
                "is no room for; leave it out, or give --max-build-memory more where there is more"
            )


def _wider(tree: ModelTree, effort: Effort, pins: Mapping[str, str], method: str) -> tuple[tuple[str, Recipe], ...]:
    """What a search falls back to: everything in fp16, then in fp32, where the effort has them not."""
    has = {fmt.name for fmt in formats_matching(effort.formats)}
    options = {f.name: layer_options(tree, (f,), pins, method) for f in (FP16, FP32) if f.name not in has}
    return tuple((name, {path: own[0] for path, own in found.items()}) for name, found in options.items())


def pinned_formats(layers: Mapping[str, str], tree: ModelTree) -> dict[str, str]:
    """Layer path -> format name, or format@method, from regular expressions; a later one wins."""
    pins: dict[str, str] = {}
    for pattern, name in layers.items():
        fmt, mark, own = name.partition(METHOD_MARK)
        format_named(fmt)
        if mark:
            method_named(own)
        matching = [layer.path for layer in layers_named(pattern, tree.layers, "--layer")]
        if not matching:
            some = ", ".join(layer.path for layer in tree.layers[:4])
            raise SlmcError(f"--layer {pattern!r} matches no layer; there are {some}, ... (see 'slmc inspect')")
        pins |= dict.fromkeys(matching, name)
    return pins
