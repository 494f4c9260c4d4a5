"""What the user asked for: every option of a build, from defaults, a YAML file, --set, and flags, in that order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exporters.artifact.errors import SlmcError
from exporters.artifact.opening import DOCUMENT_DEPTH, MIB, bounded, read_text
from targets.device.units import OPTIONS, check

CONFIG_BYTES = MIB


def _option(default: Any, description: str, *, result: bool = False, **limits: Any) -> Any:
    """An option of a build. result: whether what is built depends on it: then a resumed build must have the same, and a
    plan records it. The description is the help of its flag."""
    return Field(default=default, description=description, json_schema_extra={"result": result}, **limits)


class Spec(BaseModel):
    """Options of build, search and export, each declared here once; keys are the long flags with underscores."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    model: Path
    output: Path
    tokenizer: Path | None = _option(None, "tokenizer.json, for a bare checkpoint file.")
    family: str | None = _option(
        None,
        "The model's family, where neither its tensors nor its config.json say it: rwkv, spikegpt.",
        result=True,
    )
    calibration: Path | None = _option(None, "Text that methods look at; English prose of our own if not given.")
    eval: Path | None = _option(None, "Text that candidates are judged on; for a classifier a labelled .tsv.")
    text_field: str | None = _option(
        None, "Of JSON Lines, JSON, Parquet and tables: the field that holds the text; 'text' if not given."
    )
    context: int | None = _option(
        None, "Tokens that a key-value cache has room for, for models that have one.", result=True, ge=1, le=2**20
    )
    kv_cache: Literal["fp32", "fp16", "int8"] = _option(
        "fp32", "How the compressed model stores keys and values: fp32, fp16 or int8.", result=True
    )
    max_memory: str | None = _option(None, "Weights and states as stored: 3MB, or 15% of the fp32 model.")
    max_drop: str | None = _option(None, "Relative loss of the metric on the artifact: 1%.")
    max_latency: str | None = _option(
        None, "Median time per generated token: 5ms. Predicted before the build, and checked at the end."
    )
    max_rss: str | None = _option(None, "Peak memory less that of an empty runtime: 40MB. Checked at the end.")
    metric: Literal["perplexity", "accuracy"] | None = _option(
        None, "What a drop is a drop of: perplexity, or a classifier's accuracy."
    )
    formats: tuple[str, ...] = _option(
        (), "Formats to choose from, as names or globs: 'int4*'. Repeatable.", result=True
    )
    layer: dict[str, str] = Field(
        default_factory=dict,
        description="Pin layers: REGEX=FORMAT[@METHOD]. Repeatable.",
        json_schema_extra={"result": True},
    )
    method: str | None = _option(
        None,
        "nearest, range, gptq, descent; for N:M also magnitude, wanda, ria, esparse, sparsegpt, alps. "
        "The effort's own if not given.",
        result=True,
    )
    layout: Literal["auto", "dense"] = _option(
        "auto", "auto: input-major where inputs are mostly zero; or dense everywhere.", result=True
    )
    activations: Literal["auto", "fp32", "int8", "search"] = _option(
        "auto",
        "Inputs of products: fp32, int8 (faster), search: int8 within the limits; auto: search where nothing spikes.",
        result=True,
    )
    shuffle: str | None = _option(
        None, "Pattern that inner channels are put in order for, 2:4: free at run time.", result=True
    )
    transform: Literal["auto", "none"] = _option(
        "auto", "auto: rotations that leave the model's function as it is, where they pay; or none.", result=True
    )
    tune: int = _option(
        0, "Steps of end-to-end tuning of what the search chose; 200 is a good start.", result=True, ge=0, le=100_000
    )
    tune_for: Literal["distribution", "best-token"] = _option(
        "distribution",
        "What tuning learns from the fp32 model: its distribution (default), or best-token: also its choices.",
        result=True,
    )
    effort: str = _option("default", "quick, default or thorough.", result=True)
    max_time: str | None = _option(None, "Time for the whole command: 10m. The best so far is delivered.")
    max_build_memory: str | None = _option(
        None, "What the build itself may take: 6GB; what is available if not given. Larger models stay on disk."
    )
    seed: int = _option(0, "Of everything that is drawn at random.", result=True, ge=0, lt=2**63)
    threads: int = _option(1, "Threads of the build and of the measurement.", ge=1, le=256)
    native: tuple[Path, ...] = _option((), "libslmc_ops.so of another platform, to go along. Repeatable.")
    runtime: tuple[Path, ...] = _option((), "slmc-run, to go along; or a file: that of another platform. Repeatable.")
    target: str = _option("host", "What it is built for; see 'slmc targets ls'.", result=True)


RESULT_OPTIONS = frozenset(
    name
    for name, field in Spec.model_fields.items()
    if (field.json_schema_extra or {}).get("result")  # type: ignore[union-attr]
)
"""The options that the result of a build depends on."""


def result_options(spec: Spec) -> dict[str, Any]:
    """The values of RESULT_OPTIONS, as JSON has them; None is left out."""
    return spec.model_dump(mode="json", include=set(RESULT_OPTIONS), exclude_none=True)


def resolve(flags: Mapping[str, Any], file: Path | None, settings: Sequence[str]) -> Spec:
    """The spec of a command line: flags (None where not given) over --set KEY=VALUE over a YAML file over defaults.

    Raises:
        SlmcError: an unknown key or a value of the wrong kind, with what is allowed.
    """
    values: dict[str, Any] = {}
    if file is not None:
        values |= _read_yaml(file)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise SlmcError(f"--set {setting!r}: expected KEY=VALUE, for example --set effort=quick")
        values[key.replace("-", "_")] = _yaml_value(value, setting)
    values |= {k: v for k, v in flags.items() if v is not None and v != () and v != {}}
    for key in OPTIONS.keys() & values.keys():
        if isinstance(values[key], (int, float)):
            values[key] = str(values[key])
    if isinstance(values.get("formats"), str):
        values["formats"] = (values["formats"],)
    try:
        spec = Spec(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise SlmcError(f"unknown option {key!r}; allowed are {', '.join(Spec.model_fields)}") from error
        if first["type"] == "missing":
            raise SlmcError(
                f"option {key!r} is missing; give it on the command line or in the configuration"
            ) from error
        raise SlmcError(f"option {key!r}: {first['msg']}, found {first['input']!r}") from error
    for key, text in spec.model_dump(include=set(OPTIONS), exclude_none=True).items():
        check(text, key)
    return spec


def to_yaml(spec: Spec) -> str:
    """The resolved configuration, as it can be given again with -c."""
    return str(yaml.safe_dump(spec.model_dump(mode="json", exclude_none=True), sort_keys=False))


def _yaml_value(text: str, setting: str) -> Any:
    try:
        return _load(text, f"--set {setting[:40]!r}", "give a plain value")
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0][:160]
        raise SlmcError(f"--set {setting!r}: the value is not YAML ({reason}); put it in quotes") from error


def _load(text: str, where: str, advice: str) -> Any:
    """A YAML text as values. Depth and aliases are looked at before anything is built: ten lines of aliases of aliases
    stand for more values than a machine can hold."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DOCUMENT_DEPTH:
            raise SlmcError(f"{where}: more than {DOCUMENT_DEPTH} levels; {advice}")
        if isinstance(event, yaml.AliasEvent):
            raise SlmcError(f"{where}: the alias *{event.anchor}, which is not read here; write its value out")
    return bounded(yaml.safe_load(text), where, advice)


def _read_yaml(path: Path) -> dict[str, Any]:
    advice = "give a YAML file with keys and values, as config.resolved.yaml of an artifact"
    text = read_text(path, advice, CONFIG_BYTES)
    try:
        values = _load(text, str(path), advice)
    except (yaml.YAMLError, ValueError) as error:  # also numbers that Python refuses
        raise SlmcError(f"{path}: not YAML ({str(error).splitlines()[0][:160]}); {advice}") from error
    if not isinstance(values, dict):
        raise SlmcError(f"{path}: expected keys and values, found {type(values).__name__}")
    return {str(k).replace("-", "_"): v for k, v in values.items()}
