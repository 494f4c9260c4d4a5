"""What the user asked for: every option of a build, from defaults, a YAML file, --set, and flags, in that order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exporters.errors import SlmcError
from exporters.opening import DOCUMENT_DEPTH, MIB, bounded, read_text
from targets.units import OPTIONS, check

CONFIG_BYTES = MIB


class Spec(BaseModel):
    """Options of build, search and export; keys are the long flags with underscores."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    model: Path
    output: Path
    tokenizer: Path | None = None
    family: str | None = None
    context: int | None = Field(default=None, ge=1, le=2**20)
    kv_cache: Literal["fp32", "int8"] = "fp32"
    calibration: Path | None = None
    eval: Path | None = None
    text_field: str | None = None
    max_memory: str | None = None
    max_drop: str | None = None
    max_latency: str | None = None
    max_rss: str | None = None
    metric: Literal["perplexity", "accuracy"] | None = None
    formats: tuple[str, ...] = ()
    layer: dict[str, str] = Field(default_factory=dict)
    method: str | None = None
    layout: Literal["auto", "dense"] = "auto"
    activations: Literal["fp32", "int8", "search"] = "fp32"
    shuffle: str | None = None
    tune: int = Field(default=0, ge=0, le=100_000)
    tune_for: Literal["distribution", "best-token"] = "distribution"
    effort: str = "default"
    max_time: str | None = None
    max_build_memory: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    threads: int = Field(default=1, ge=1, le=256)
    target: str = "host"
    native: tuple[Path, ...] = ()


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
