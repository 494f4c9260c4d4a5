"""What an artifact says of itself: manifest.json as frozen values, read strictly and without trust."""

from __future__ import annotations

import dataclasses
import json
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from exporters.artifact.errors import SlmcError
from exporters.artifact.opening import MIB, read_json
from exporters.artifact.parsing import parse
from exporters.artifact.ranges import check_ranges
from exporters.artifact.runtimes import ONNXRUNTIME, SLMC_RUN
from exporters.artifact.text_rules import TextRules

SCHEMA_VERSION = 1
MANIFEST_BYTES = 16 * MIB
"""Largest manifest that is read; one of 100 layers has 30 KiB."""
MANIFEST_NAME = "manifest.json"
LOGITS_FROM = "logits_from"
"""What the graph's input is called that `Io.logits_from` names."""
PERPLEXITY, ACCURACY = "perplexity", "accuracy"
"""What quality may be measured in: of next tokens, or of classes."""


@dataclass(frozen=True)
class Producer:
    name: str
    version: str


@dataclass(frozen=True)
class Source:
    """The model that was compiled; sha256 of its weights file. origin: what its weights are, if not as trained."""

    path_name: str
    family: str
    sha256: str
    params: int
    origin: str | None = None


@dataclass(frozen=True)
class State:
    """One recurrent state: graph input and output, and the value that every entry starts with.

    in_place: input and output may be the same memory.
    """

    input: str
    output: str
    shape: tuple[int, ...]
    dtype: str
    fill: float
    in_place: bool = False


@dataclass(frozen=True)
class ClassScores:
    """What a classifier tells apart: names of the classes in the order of their scores; how many tokens there are,
    which its scores do not show.

    whole_texts: a text must be read in one call, because later tokens change what earlier ones say.
    """

    labels: tuple[str, ...]
    vocabulary: int
    whole_texts: bool = False


@dataclass(frozen=True)
class Io:
    """Names of the graph's inputs and outputs: tokens int64 [1, T], logits float32 [1, T, V].

    context: the most tokens of one text that the states have room for; None without a limit.
    classes: of a classifier, whose logits are float32 [1, 1, classes], the scores of all tokens so far.
    bodies: the most function bodies that one operator has in the graph, each under a name of its own; None in older
    artifacts, whose bodies may share a name. fused: likewise of fused nodes, 0 in graphs without them.
    logits_from: name of the input, int64 [1], that says from which token of a call on logits are given: 0 for all, -k
    for the last k. None where a graph always gives all, or the scores of a text.
    """

    tokens: str
    logits: str
    states: tuple[State, ...]
    context: int | None = None
    classes: ClassScores | None = None
    bodies: int | None = None
    logits_from: str | None = None
    fused: int = 0


@dataclass(frozen=True)
class RecipeEntry:
    """One layer as stored; activations: fp32, or int8 where its inputs are rounded before the product."""

    format: str
    method: str
    activations: str
    bytes: int
    bits_per_weight: float


@dataclass(frozen=True)
class Bytes:
    """weights and states as stored; weights_fp32 for the uncompressed model; file is model.onnx + model.onnx.data.

    states_fp32: of the uncompressed model, None where states are stored as it has them.
    """

    weights: int
    weights_fp32: int
    states: int
    file: int
    states_fp32: int | None = None

    @property
    def uncompressed(self) -> int:
        """Weights and states of the uncompressed model: what percentages of memory refer to."""
        return self.weights_fp32 + (self.states if self.states_fp32 is None else self.states_fp32)


@dataclass(frozen=True)
class Quality:
    """The metric of the artifact on ONNX Runtime beside the fp32 model's; relative_drop > 0 is worse.

    relative_drop: by what share of the fp32 model's perplexity rises or accuracy falls. bits_per_byte*: of a language
    model, 0 of a classifier. tokens: of a classifier, sentences.
    """

    metric: str
    dataset: str
    dataset_sha256: str
    tokens: int
    reference: float
    compressed: float
    relative_drop: float
    relative_drop_upper: float
    bits_per_byte: float
    bits_per_byte_reference: float
    kl_mean: float
    top1_agreement: float


@dataclass(frozen=True)
class Parity:
    """The artifact on ONNX Runtime against torch with the same recipe."""

    logits_max_abs: float
    top1_agreement: float
    perplexity_ratio: float
    tokens: int


@dataclass(frozen=True)
class Percentiles:
    p50: float
    p90: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Measured:
    """Measured in a child process on the named target; every *_bytes of the process, the baseline an empty runtime."""

    target: str
    cpu: str
    isa: str
    threads: int
    ort_version: str
    native: bool
    prompt_tokens: int
    prompt_tps: float
    decode_ms: Percentiles
    decode_tps: float
    load_ms: float
    rss_peak_bytes: int
    rss_after_load_bytes: int
    rss_baseline_bytes: int
    private_bytes: int
    file_backed_bytes: int
    read_bandwidth_gbs: float
    bandwidth_fraction: float

    @property
    def runtime(self) -> str:
        """What ran: slmc-run, or ONNX Runtime with compiled operators or (native is False) without them."""
        return ONNXRUNTIME if self.ort_version else SLMC_RUN


@dataclass(frozen=True)
class OwnRuntime:
    """slmc-run, where it goes along. programs: platform -> bytes of the program.

    tokenizer: why it takes and gives token ids in the place of text; None where it gives the ids of the tokenizers
    library on the calibration and evaluation texts. measured: with it, on the platform of the build; None where no
    program for that was there.
    """

    programs: dict[str, int]
    tokenizer: str | None
    measured: Measured | None = None


@dataclass(frozen=True)
class Constraint:
    """One thing that had to hold: the limit, what was measured, in the named unit."""

    name: str
    limit: float
    actual: float
    unit: str
    met: bool


@dataclass(frozen=True)
class FileEntry:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The whole manifest.json.

    text: of a language model; None of a classifier, and of artifacts from before it was written.
    operators: platform -> id of the sources of its compiled operators, see native_library.build_id; None in older
    artifacts.
    slmc_run: None where it does not go along.
    """

    schema_version: int
    producer: Producer
    created: str
    source: Source
    io: Io
    recipe: dict[str, RecipeEntry]
    bytes: Bytes
    quality: Quality | None
    parity: Parity | None
    measured: Measured | None
    constraints: tuple[Constraint, ...]
    files: dict[str, FileEntry]
    text: TextRules | None = None
    operators: dict[str, str] | None = None
    slmc_run: OwnRuntime | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def read_manifest(artifact: Path) -> Manifest:
    """The manifest of an artifact directory, checked: schema, version, and that no path leaves the directory.

    Raises:
        SlmcError: what is wrong, and where.
    """
    path = artifact / MANIFEST_NAME
    if not path.is_file():
        raise SlmcError(f"{artifact}: no {MANIFEST_NAME} there, so it is no artifact; make one with 'slmc build'")
    raw = read_json(path, "copy the artifact again", MANIFEST_BYTES)
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        raise SlmcError(
            f"{path}: schema_version is {version!r}, this slmc reads {SCHEMA_VERSION}; use the slmc that wrote it"
        )
    manifest: Manifest = parse(Manifest, raw, str(path))
    check_ranges(manifest, str(path))
    for name in manifest.files:
        confined(artifact, name)
    return manifest


def confined(artifact: Path, name: str) -> Path:
    """The path of a file inside an artifact.

    Raises:
        SlmcError: the name is absolute, climbs out with '..', passes through a linked folder, or is none a file can
            have. The file itself may be a link, as a hub's cache makes them: what it holds is compared.
    """
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or not relative.parts:
        raise SlmcError(
            f"{artifact / MANIFEST_NAME}: file name {name!r} leaves the artifact; only relative paths inside"
        )
    path = artifact
    for number, part in enumerate(relative.parts, 1):
        path = path / part
        try:
            linked = stat.S_ISLNK(path.lstat().st_mode)
        except FileNotFoundError:
            linked = False
        except (OSError, ValueError) as error:  # too long, a file where a folder should be, NUL
            raise SlmcError(f"{artifact / MANIFEST_NAME}: no file can be named {name[:80]!r} ({error})") from error
        if linked and number < len(relative.parts):
            raise SlmcError(f"{path}: a link to a folder; an artifact holds files, and links to files")
    return path
