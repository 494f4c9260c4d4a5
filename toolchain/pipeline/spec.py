"""The options of a build, resolved from defaults, a YAML file, --set and flags, in that order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exporters.artifact.errors import SlmcError
from exporters.artifact.opening import DOCUMENT_DEPTH, MIB, bounded, read_text
from targets.device.quantities import OPTIONS, check

CONFIG_BYTES = MIB


def _option(default: Any, description: str, *, result: bool = False, **limits: Any) -> Any:
    """An option of a build. The description is the help text of its flag.

    result: whether the artifact depends on the option. A resumed build must then use the same value, and the plan
    records it.
    """
    return Field(default=default, description=description, json_schema_extra={"result": result}, **limits)


class Spec(BaseModel):
    """Options of build, search and export, each declared here once; keys are the long flags with underscores."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    model: Path
    output: Path
    tokenizer: Path | None = _option(None, "tokenizer.json, if MODEL is a bare checkpoint file.")
    family: str | None = _option(
        None,
        "Model family, if neither the tensors nor config.json tell: rwkv, spikegpt.",
        result=True,
    )
    calibration: Path | None = _option(
        None, "Calibration text for the compression methods. Default: English prose that slmc ships."
    )
    eval: Path | None = _option(None, "Text that candidates are evaluated on; for a classifier, a labelled .tsv.")
    text_field: str | None = _option(
        None, "Field that holds the text in JSON Lines, JSON, Parquet and tables. Default: 'text'."
    )
    context: int | None = _option(
        None, "Number of tokens that the key-value cache holds, for models that have one.", result=True, ge=1, le=2**20
    )
    kv_cache: Literal["fp32", "fp16", "int8"] = _option(
        "fp32", "How the compressed model stores keys and values: fp32, fp16 or int8.", result=True
    )
    max_memory: str | None = _option(None, "Limit on stored weights and states: 3MB, or 15% of the fp32 model.")
    max_drop: str | None = _option(None, "Limit on the artifact's relative loss of the metric: 1%.")
    max_latency: str | None = _option(
        None, "Limit on the median time per generated token: 5ms. Predicted first, checked at the end."
    )
    max_rss: str | None = _option(
        None, "Limit on peak memory above that of an empty runtime: 40MB. Checked at the end."
    )
    metric: Literal["perplexity", "accuracy"] | None = _option(
        None, "Quality metric: perplexity, or a classifier's accuracy."
    )
    formats: tuple[str, ...] = _option(
        (), "Formats that the search may choose from, as names or globs: 'int4*'. Repeatable.", result=True
    )
    layer: dict[str, str] = Field(
        default_factory=dict,
        description="Pin layers: REGEX=FORMAT[@METHOD]. Repeatable.",
        json_schema_extra={"result": True},
    )
    method: str | None = _option(
        None,
        "Compression method: nearest, range, gptq, descent; for N:M also magnitude, wanda, ria, esparse, sparsegpt, "
        "alps. Default: set by --effort.",
        result=True,
    )
    layout: Literal["auto", "dense"] = _option(
        "auto", "Weight layout: auto stores layers with mostly zero inputs input-major; dense never does.", result=True
    )
    activations: Literal["auto", "fp32", "int8", "search"] = _option(
        "auto",
        "Inputs of matrix products: fp32; int8 (faster); search: int8 where limits allow; auto: search if none spike.",
        result=True,
    )
    shuffle: str | None = _option(
        None, "Reorder inner channels to suit an N:M pattern, such as 2:4. Costs nothing at run time.", result=True
    )
    transform: Literal["auto", "none"] = _option(
        "auto",
        "auto: apply rotations that preserve the model's function where they lower the loss; or none.",
        result=True,
    )
    refine: Literal["auto", "always", "none"] = _option(
        "auto",
        "Compress the layers of what the search chose again, block by block, on what the compressed blocks before them "
        "give: at efforts above quick (auto), always, or none.",
        result=True,
    )
    tune: int = _option(
        0, "Steps of end-to-end tuning after the search; 200 is a good start.", result=True, ge=0, le=100_000
    )
    tune_for: Literal["distribution", "best-token"] = _option(
        "distribution",
        "What tuning learns from the fp32 model: its distribution (default), or also its best tokens.",
        result=True,
    )
    effort: str = _option("default", "Search effort: quick, default or thorough.", result=True)
    max_time: str | None = _option(
        None, "Time limit for the whole command: 10m. The best candidate so far is delivered."
    )
    max_build_memory: str | None = _option(
        None, "Memory that the build may use: 6GB. Larger models stay on disk. Default: what is available."
    )
    seed: int = _option(0, "Random seed.", result=True, ge=0, lt=2**63)
    threads: int = _option(1, "Threads of the build and of the measurement.", ge=1, le=256)
    workers: int = _option(1, "Processes that compress and evaluate, on this machine.", ge=1, le=256)
    cluster: str | None = _option(None, "Dask scheduler whose workers compress and evaluate: tcp://host:8786.")
    worker_memory: str | None = _option(
        None, "Memory that one worker may use: 4GB. Default: an equal share of what is available."
    )
    native: tuple[Path, ...] = _option((), "libslmc_ops.so of another platform to include in the artifact. Repeatable.")
    runtime: tuple[Path, ...] = _option(
        (), "Include slmc-run in the artifact; or a file: slmc-run of another platform. Repeatable."
    )
    target: str = _option("host", "CPU to build for; see 'slmc targets ls'.", result=True)


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
    """The resolved configuration, as it can be given again with -c; who did the work is not part of it."""
    found = spec.model_dump(mode="json", exclude_none=True, exclude={"workers", "cluster", "worker_memory"})
    return str(yaml.safe_dump(found, sort_keys=False))


def _yaml_value(text: str, setting: str) -> Any:
    try:
        return _load(text, f"--set {setting[:40]!r}", "give a plain value")
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0][:160]
        raise SlmcError(f"--set {setting!r}: the value is not YAML ({reason}); put it in quotes") from error


def _load(text: str, where: str, advice: str) -> Any:
    """The values of a YAML text. Depth and aliases are checked first, because ten lines of nested aliases can expand to
    more values than a machine can hold."""
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
