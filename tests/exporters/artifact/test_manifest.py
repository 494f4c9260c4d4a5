"""manifest.json is read without trust: what is missing, unknown, of another type or outside is named and refused."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import (
    MANIFEST_NAME,
    Bytes,
    Constraint,
    FileEntry,
    Io,
    Manifest,
    Measured,
    Parity,
    Percentiles,
    Producer,
    Quality,
    RecipeEntry,
    Source,
    State,
    confined,
    read_manifest,
)
from exporters.artifact.parsing import parse
from exporters.artifact.text_rules import Chat, TextRules

CHAT = Chat("{{ x }}", {"eos_token": "<e>"}, ("<u>", "<a>"), ("", "", ""), None, True, (7,), None)
FULL = Manifest(
    schema_version=1,
    producer=Producer("slmc", "0.1.0"),
    created="2025-01-01T00:00:00Z",
    source=Source("tiny.pth", "spikegpt", "ab" * 32, 1234),
    io=Io("tokens", "logits", (State("s.m", "next.m", (1, 32), "float32", -1e38), State("a", "b", (), "int8", 0.0))),
    recipe={
        "blocks.0.att.key": RecipeEntry("int4-g64", "nearest", "int8", 100, 4.25),
        "émb": RecipeEntry("sign", "n", "fp32", 1, 1.0),
    },
    bytes=Bytes(100, 400, 8, 120),
    quality=Quality("perplexity", "text", "cd" * 32, 500, 10.5, 10.75, 0.02, 0.03, 1.5, 1.25, 0.001, 0.99),
    parity=Parity(1e-5, 1.0, 1.0, 64),
    measured=Measured(
        "host", "A CPU", "avx2", 2, "1.24", True, 64, 100.0, Percentiles(1.0, 2.0, 3.0, 4.0), 900.0, 5.0, 1000, 900,
        500, 400, 100, 10.5, 0.5,
    ),
    constraints=(Constraint("max-memory", 100.0, 90.0, "bytes", True), Constraint("a", 1.0, 2.0, "ms", False)),
    files={"model.onnx": FileEntry(20, "ef" * 32), "native/linux-x86_64/libslmc_ops.so": FileEntry(1, "00")},
    text=TextRules((1,), (2, 0), ("\n\n",), 3, CHAT),
    operators={"linux-x86_64": "0f" * 32},
)  # fmt: skip


def _state(shape: list[int], dtype: str = "float32", fill: float = 0.0) -> dict[str, Any]:
    return {"input": "i", "output": "o", "shape": shape, "dtype": dtype, "fill": fill}


NOTHING = {
    "quality": None,
    "parity": None,
    "measured": None,
    "constraints": (),
    "files": {},
    "recipe": {},
    "text": None,
    "operators": None,
}
BARE = dataclasses.replace(FULL, **NOTHING)


def written(folder: Path, document: Any) -> Path:
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
    return folder


def changed(place: str, value: Any) -> dict[str, Any]:
    """The full manifest as JSON with one value replaced; `...` removes it."""
    document: Any = json.loads(FULL.to_json())
    *parents, last = [int(p) if p.isdigit() else p for p in place.split("/")]
    inner = document
    for parent in parents:
        inner = inner[parent]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    result: dict[str, Any] = document
    return result


@pytest.mark.parametrize("manifest", [FULL, BARE], ids=["full", "bare"])
def test_round_trip(tmp_path, manifest):
    found = read_manifest(written(tmp_path, manifest.to_json()))
    assert found == manifest
    assert found.to_json() == manifest.to_json()
    assert hash(found.io) == hash(manifest.io)  # tuples, not lists


def test_json_is_plain():
    document = json.loads(FULL.to_json())
    assert document["schema_version"] == 1
    assert document["io"]["states"][0] == {
        "input": "s.m", "output": "next.m", "shape": [1, 32], "dtype": "float32", "fill": -1e38,
        "in_place": False,
    }  # fmt: skip
    assert document["measured"]["decode_ms"] == {"p50": 1.0, "p90": 2.0, "p95": 3.0, "p99": 4.0}
    assert FULL.to_json().endswith("}\n")


def test_a_manifest_from_before_texts_had_rules_is_read(tmp_path):
    assert read_manifest(written(tmp_path, changed("text", ...))).text is None


def test_whole_numbers_serve_as_floats(tmp_path):
    found = read_manifest(written(tmp_path, changed("parity/top1_agreement", 1)))
    assert found.parity is not None
    assert found.parity.top1_agreement == 1.0 and isinstance(found.parity.top1_agreement, float)


REFUSED = {
    "a word for a token": ("text/end", ["</s>"], r"manifest.json.text.end\[0\]: expected int, found '</s>'"),
    "a number for a string": ("text/stop", [3], r"manifest.json.text.stop\[0\]: expected str, found 3"),
    "half a chat": ("text/chat/trim", ..., "manifest.json.text.chat: missing trim"),
    "missing": ("created", ..., "manifest.json: missing created"),
    "missing deep inside": ("io/states/0/fill", ..., r"manifest.json.io.states\[0\]: missing fill"),
    "missing though optional": ("quality", ..., "manifest.json: missing quality"),
    "unknown": ("source/license", "MIT", "manifest.json.source: unknown license"),
    "unknown at the top": ("extra", 1, "manifest.json: unknown extra"),
    "text for int": ("bytes/weights", "100", "manifest.json.bytes.weights: expected int, found '100'"),
    "float for int": ("bytes/weights", 100.0, "manifest.json.bytes.weights: expected int, found 100.0"),
    "bool for int": ("source/params", True, "manifest.json.source.params: expected int, found True"),
    "bool for float": ("parity/logits_max_abs", False, "manifest.json.parity.logits_max_abs: expected float"),
    "int for bool": ("measured/native", 1, "manifest.json.measured.native: expected bool, found 1"),
    "int for text": ("created", 5, "manifest.json.created: expected str, found 5"),
    "null for text": ("created", None, "manifest.json.created: expected str, found None"),
    "null for an object": ("io", None, "manifest.json.io: expected an object, found NoneType"),
    "list for an object": ("producer", [], "manifest.json.producer: expected an object, found list"),
    "object for a list": ("constraints", {}, "manifest.json.constraints: expected a list, found dict"),
    "text for a list": ("io/states/0/shape", "32", r"manifest.json.io.states\[0\].shape: expected a list"),
    "wrong inside a list": ("io/states/1/shape", [1, "T"], r"states\[1\].shape\[1\]: expected int, found 'T'"),
    "wrong inside an object": ("files/model.onnx/bytes", None, "manifest.json.files.model.onnx.bytes: expected int"),
    "list for a mapping": ("recipe", [], "manifest.json.recipe: expected an object, found list"),
    "too large for a float": ("parity/perplexity_ratio", 10**400, "manifest.json: a number of 1329 bits"),
    "no context": ("io/context", 0, "io.context is 0; allowed is 1 to 2147483648"),
    "context below zero": ("io/context", -(2**63), "io.context is -9223372036854775808; allowed is 1 to"),
    "context beyond": ("io/context", 2**31 + 1, "allowed is 1 to 2147483648"),
    "states beyond memory": ("io/states", [_state([2**32, 2**32])], "states: their bytes is 73786976294838206464"),
    "a dimension of 0": ("io/states", [_state([1, 0])], "states.0..shape is 0; allowed is 1 to"),
    "a negative dimension": ("io/states", [_state([-1, -1])], "states.0..shape is -1"),
    "nine dimensions": ("io/states", [_state([1] * 9)], "has 9 dimensions; at most 8"),
    "fill beyond its type": ("io/states", [_state([1], dtype="int8", fill=128.0)], "fill is 128.0; allowed is -128"),
    "unknown type": ("io/states", [_state([1], dtype="float8")], "dtype is 'float8'; allowed are float32"),
    "too many states": ("io/states", [_state([1])] * 10_001, "io.states: 10001 entries, at most 10000"),
    "negative size": ("files/model.onnx/bytes", -1, "files.model.onnx.bytes is -1; allowed is 0 to"),
    "newer": ("schema_version", 2, "schema_version is 2, this slmc reads 1; use the slmc that wrote it"),
    "version as text": ("schema_version", "1", "schema_version is '1', this slmc reads 1"),
    "version as bool": ("schema_version", True, "schema_version"),
    "version as float": ("schema_version", 1.0, "schema_version"),
    "no version": ("schema_version", ..., "schema_version is None"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    place, value, message = REFUSED[case]
    with pytest.raises(SlmcError, match=message):
        read_manifest(written(tmp_path, changed(place, value)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[1]", "schema_version is None"),
        ("null", "schema_version is None"),
        ('{"schema_version": ' + "9" * 5000 + "}", "not JSON"),  # Python refuses such integers
        ("[" * 100_000, "not JSON"),  # and gives up on such depths
    ],
)
def test_other_texts(tmp_path, text, message):
    with pytest.raises(SlmcError, match=message) as error:
        read_manifest(written(tmp_path, text))
    assert MANIFEST_NAME in str(error.value) and len(str(error.value)) < 1000


def test_not_text(tmp_path):
    (tmp_path / MANIFEST_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SlmcError, match="not UTF-8"):
        read_manifest(tmp_path)


def test_more_layers_than_any_model_has(tmp_path):
    entry = dataclasses.asdict(FULL.recipe["émb"])
    with pytest.raises(SlmcError, match="recipe: 20001 entries, at most 20000"):
        read_manifest(written(tmp_path, changed("recipe", {str(i): entry for i in range(20_001)})))
    with pytest.raises(SlmcError, match="bytes, at most 16777216"):
        read_manifest(written(tmp_path, " " * 2**24 + FULL.to_json()))  # as long as one of 300,000 layers


def test_no_artifact(tmp_path):
    with pytest.raises(SlmcError, match=r"no manifest\.json there, so it is no artifact; make one with 'slmc build'"):
        read_manifest(tmp_path)
    with pytest.raises(SlmcError, match="no artifact"):
        read_manifest(tmp_path / "nowhere")


OUTSIDE = ["../model.onnx", "a/../../b", "..", "/etc/passwd", "a\\b", "..\\b", "", ".", "a/.."]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_leave_the_artifact(tmp_path, name):
    document = copy.deepcopy(json.loads(FULL.to_json()))
    document["files"] = {"model.onnx": {"bytes": 1, "sha256": "00"}, name: {"bytes": 1, "sha256": "00"}}
    for attempt in (lambda: read_manifest(written(tmp_path, document)), lambda: confined(tmp_path, name)):
        with pytest.raises(SlmcError, match="leaves the artifact; only relative paths inside"):
            attempt()


@pytest.mark.parametrize(
    "name",
    ["a" * 300, "a/" * 3000 + "b", "a\0b", "manifest.json/b"],
    ids=["long part", "long path", "NUL", "file as folder"],
)
def test_names_that_no_file_can_have(tmp_path, name):
    with pytest.raises(SlmcError, match=r"manifest\.json: no file can be named"):
        confined(written(tmp_path, "{}"), name)


def test_names_inside(tmp_path):
    assert confined(tmp_path, "model.onnx") == tmp_path / "model.onnx"
    assert confined(tmp_path, "native/linux-x86_64/x.so") == tmp_path / "native" / "linux-x86_64" / "x.so"
    assert confined(tmp_path, "..a/b..") == tmp_path / "..a" / "b.."


@pytest.mark.parametrize("name", ["link/file", "folder/to/file"])
def test_linked_folders(tmp_path, name):
    outside, artifact = tmp_path / "outside", tmp_path / "artifact"
    outside.mkdir()
    (outside / "file").write_text("secret")
    (artifact / "folder").mkdir(parents=True)
    (artifact / "link").symlink_to(outside)
    (artifact / "folder" / "link").symlink_to(outside / "file")
    (artifact / "folder" / "to").symlink_to(outside)
    document = json.loads(BARE.to_json()) | {"files": {name: {"bytes": 1, "sha256": "00"}}}
    with pytest.raises(SlmcError, match="a link to a folder; an artifact holds files"):
        read_manifest(written(artifact, document))


def test_an_artifact_may_be_reached_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    written(tmp_path / "real", FULL.to_json())
    (tmp_path / "here").symlink_to(tmp_path / "real")
    assert read_manifest(tmp_path / "here") == FULL


def test_parts_are_parsed_alone():
    assert parse(State, {"input": "a", "output": "b", "shape": [1], "dtype": "d", "fill": 0}, "s").fill == 0.0
    assert parse(Percentiles | None, None, "p") is None
    with pytest.raises(SlmcError, match=r"^here: expected an object, found int"):
        parse(Percentiles | None, 3, "here")
