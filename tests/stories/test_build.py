"""A build as a user sees it: one command, and a folder that holds all that was promised and runs without us."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import yaml
from tokenizers import Tokenizer

from exporters.artifact.manifest import Manifest, read_manifest
from exporters.formats.base import bytes_for
from exporters.formats.catalog import format_named
from targets.device.native import platform_name
from targets.device.session import open_session
from toolchain.calibration.hessian import input_hessians
from toolchain.calibration.statistics import CalibrationStatistics
from toolchain.compress.recipe import LayerConfig
from toolchain.delivery.deliver import stored_model
from toolchain.delivery.validate import artifact_session
from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.text import read_text
from toolchain.search.evaluator import layer_maker
from toolchain.search.plan import read_plan

PROMPT = "The old bridge over the river was"
FILES = {
    "manifest.json", "model.onnx", "model.onnx.data", f"native/{platform_name()}/libslmc_ops.so", "tokenizer.json",
    "run.py", "report.html", "report.json", "plan.json", "config.resolved.yaml", "SHA256SUMS",
}  # fmt: skip
ALONE = """
import runpy, sys
class Deny:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "slmc", "toolchain", "targets", "exporters", "onnx", "safetensors"):
            raise ImportError(f"{name} is not on this device")
sys.meta_path.insert(0, Deny())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "toolchain", "exporters"}), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def manifest(artifact: Path) -> Manifest:
    return read_manifest(artifact)


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> LoadedModel:
    return load_model(tiny_model)


def test_it_writes_the_same_everywhere(artifact: Path, said_everywhere: Callable[..., Any]) -> None:
    said = said_everywhere(artifact, "-p", "The ship", "-n", 40, "--temperature", 0)
    assert len(set(said.values())) == 1 and len(said["oldest plain"]) > len("The ship"), said


def test_every_promised_file_is_there_and_no_other(artifact: Path, manifest: Manifest) -> None:
    found = {str(p.relative_to(artifact)) for p in artifact.rglob("*") if p.is_file()}
    assert found == FILES
    assert manifest.files.keys() == FILES - {"manifest.json", "SHA256SUMS"}
    assert [p.name for p in artifact.parent.iterdir()] == [artifact.name], "a work folder was left behind"


def test_the_sums_are_checked_by_sha256sum(artifact: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=artifact, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == len(FILES) - 1


def test_sizes_are_those_of_the_law(artifact: Path, manifest: Manifest, loaded: LoadedModel) -> None:
    tree = loaded.tree
    law = {x.path: bytes_for(format_named(manifest.recipe[x.path].format), x.rows, x.cols) for x in tree.layers}
    assert {path: entry.bytes for path, entry in manifest.recipe.items()} == law
    assert manifest.bytes.weights == sum(law.values()) + 4 * tree.vector_params
    assert manifest.bytes.states == 4 * tree.state_values
    assert manifest.bytes.weights_fp32 == 4 * tree.params
    files = (artifact / "model.onnx", artifact / "model.onnx.data")
    assert manifest.bytes.file == sum(path.stat().st_size for path in files)
    graph = onnx.load(files[0], load_external_data=False).graph
    weights = [t for t in graph.initializer if t.data_type != onnx.TensorProto.INT64 and len(t.dims)]
    stored = sum(int(np.prod(t.dims)) * onnx.helper.tensor_dtype_to_np_dtype(t.data_type).itemsize for t in weights)
    assert stored == manifest.bytes.weights


def test_the_limits_are_met_and_said_to_be(manifest: Manifest) -> None:
    said = {c.name: c for c in manifest.constraints}
    assert said.keys() == {"max_memory", "max_drop"}
    assert all(c.met and c.actual <= c.limit for c in said.values())
    assert said["max_memory"].actual == manifest.bytes.weights + manifest.bytes.states
    assert manifest.quality is not None and said["max_drop"].actual == manifest.quality.relative_drop
    assert manifest.quality.kl_mean > 0 and manifest.parity is not None and manifest.parity.top1_agreement > 0.99


def test_the_graph_passes_the_checker_and_its_data_is_aligned(artifact: Path) -> None:
    onnx.checker.check_model(artifact / "model.onnx")
    model = onnx.load(artifact / "model.onnx", load_external_data=False)
    places = [{e.key: e.value for e in t.external_data} for t in model.graph.initializer if t.external_data]
    assert {p["location"] for p in places} == {"model.onnx.data"}
    assert str(Path.cwd()) not in str(model.graph), "a path of this machine is in the graph"


def check_schema(value: Any, schema: dict[str, Any] | bool, root: dict[str, Any], where: str = "$") -> None:
    """Assert a value against the part of JSON Schema that our schemas use; a keyword that is not known fails."""
    known = {"$defs", "title", "description", "type", "properties", "required", "items", "anyOf", "$ref",
             "additionalProperties", "default"}  # fmt: skip
    if isinstance(schema, bool):
        assert schema
        return None
    assert schema.keys() <= known, f"{where}: {schema.keys() - known}"
    if "$ref" in schema:
        return check_schema(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, where)
    if "anyOf" in schema:
        kinds = [s for s in schema["anyOf"] if (s.get("type") == "null") == (value is None)]
        assert kinds, f"{where}: {value!r} is none of {schema['anyOf']}"
        return check_schema(value, kinds[0], root, where)
    types = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
             "null": type(None)}  # fmt: skip
    assert isinstance(value, types[schema["type"]]), f"{where}: {value!r} is no {schema['type']}"
    if schema["type"] == "object":
        fields = schema.get("properties", {})
        assert value.keys() >= set(schema.get("required", ())), f"{where}: {schema['required']} asked for"
        assert not fields or value.keys() <= fields.keys(), f"{where}: {value.keys() - fields.keys()} not in the schema"
        for key, item in value.items():
            check_schema(item, fields.get(key) or schema["additionalProperties"], root, f"{where}.{key}")
    for i, item in enumerate(value if schema["type"] == "array" else ()):
        check_schema(item, schema["items"], root, f"{where}[{i}]")
    return None


@pytest.mark.parametrize(
    ("name", "file"), [("manifest", "manifest.json"), ("plan", "plan.json"), ("report", "report.json")]
)
def test_what_is_written_fits_the_schema_that_is_exported(
    artifact: Path, document: Callable[..., Any], name: str, file: str
) -> None:
    schema = document("schema", name)
    value = json.loads((artifact / file).read_text(encoding="utf-8"))
    check_schema(value, schema, schema)
    with pytest.raises(AssertionError, match="extra"):
        check_schema(value | {"extra": 1}, schema, schema)


def alone(artifact: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """run.py in a Python that can import neither torch nor slmc, from a folder that has nothing to do with either."""
    command = [sys.executable, "-P", "-c", ALONE, str(artifact / "run.py"), *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=artifact.parent, timeout=120, check=False)


def greedy_torch(model: Any, ids: list[int], count: int) -> list[int]:
    state, written = model.initial_state(1), list(ids)
    fresh = torch.tensor([ids])
    with torch.inference_mode():
        for _ in range(count):
            logits, state = model(fresh, state)
            written.append(int(logits[0, -1].argmax()))
            fresh = torch.tensor([[written[-1]]])
    return written


def greedy_session(session: Any, ids: list[int], count: int) -> list[int]:
    written = list(ids)
    logits = session.prefill(np.array([ids]))
    for _ in range(count):
        written.append(int(logits.argmax()))
        logits = session.step(written[-1])
    return written


def greedy_plain(artifact: Path, manifest: Manifest, ids: list[int], count: int) -> list[int]:
    """On an ONNX Runtime that has never heard of us."""
    session = ort.InferenceSession(artifact / "model.onnx", providers=["CPUExecutionProvider"])
    state = {s.input: np.full(s.shape, s.fill, np.float32) for s in manifest.io.states}
    names = [manifest.io.logits, *(s.output for s in manifest.io.states)]
    written, fresh = list(ids), list(ids)
    for _ in range(count):
        given = {manifest.io.tokens: np.array([fresh], np.int64), manifest.io.logits_from: np.array([-1]), **state}
        logits, *after = session.run(names, given)
        assert logits.shape[1] == 1
        state = dict(zip(state, after, strict=True))
        fresh = [int(logits[0, -1].argmax())]
        written += fresh
    return written


def test_the_same_tokens_come_out_everywhere(artifact: Path, manifest: Manifest, loaded: LoadedModel) -> None:
    """The golden story: torch, the native operators, stock ONNX Runtime and run.py write the same text."""
    count = 24
    tokenizer = Tokenizer.from_file(str(artifact / "tokenizer.json"))
    ids = tokenizer.encode(PROMPT).ids
    plan = read_plan(artifact / "plan.json")
    text = read_text(SHIPPED_TEXTS / "calibration.txt", loaded.tokenizer).head(plan.calibration_tokens)
    make = layer_maker(loaded, CalibrationStatistics(input_hessians(loaded, text.ids), {}, torch.ones(0)))
    recipe = {path: LayerConfig(e.format, e.method, e.activations) for path, e in manifest.recipe.items()}
    stored = {path: make(path, layer_config) for path, layer_config in recipe.items()}
    native = artifact_session(artifact, manifest.io)
    written = greedy_session(native, ids, count)
    assert len(set(written[len(ids) :])) > 3, "a text that repeats one token proves nothing"
    assert greedy_plain(artifact, manifest, ids, count) == written
    stock = open_session(artifact / "model.onnx", manifest.io, native=None)
    assert greedy_session(stock, ids, count) == written
    assert greedy_torch(stored_model(loaded, stored, recipe), ids, count) == written
    for flags in ((), ("--no-native",)):
        done = alone(artifact, "-p", PROMPT, "-n", str(count), "--temperature", "0", *flags)
        assert done.returncode == 0, done.stderr
        assert done.stdout.rstrip("\n") == tokenizer.decode(written).rstrip("\ufffd")
        assert done.stderr.splitlines()[-1] == "[]", "torch or slmc was imported"


def test_run_py_takes_no_tokens_too(artifact: Path) -> None:
    done = alone(artifact, "-p", PROMPT, "-n", "0")
    assert (done.returncode, done.stdout.strip()) == (0, PROMPT), done.stderr


def test_the_two_halves_give_what_build_gives(
    artifact: Path, tiny_model: Path, slmc: Callable[..., Any], limits: tuple[str, ...], tmp_path: Path
) -> None:
    """Also: the same seed twice gives the same plan and the same bytes."""
    plan, out = tmp_path / "plan.json", tmp_path / "out"
    assert slmc("search", tiny_model, "-o", plan, *limits).exit_code == 0
    assert plan.read_bytes() == (artifact / "plan.json").read_bytes()
    result = slmc("export", tiny_model, "--plan", plan, "-o", out)
    assert result.exit_code == 0, result.stderr
    for name in ("model.onnx.data", "model.onnx", "plan.json", "run.py", "tokenizer.json"):
        assert (out / name).read_bytes() == (artifact / name).read_bytes(), name
    halves, whole = read_manifest(out), read_manifest(artifact)
    for part in ("source", "io", "recipe", "bytes", "quality", "parity", "constraints"):
        assert getattr(halves, part) == getattr(whole, part), part
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "plan.json"]


def test_limits_that_cannot_be_met_still_give_the_closest_artifact(
    tiny_model: Path, artifact: Path, slmc: Callable[..., Any], tmp_path: Path
) -> None:
    """Also: --force replaces an artifact, --json prints one document, --formats and --layer are kept to."""
    out = tmp_path / "out"
    impossible = ("--max-drop", "0.0001%", "--max-memory", "22%", "--max-latency", "1us")
    pins = ("--layer", "att.key=int4-g64", "--layer", r"blocks\.1\..*key=fp16")
    options = ("--effort", "quick", *impossible, "--formats", "int[23]-g64", *pins)
    shutil.copytree(artifact, out)
    result = slmc("build", tiny_model, "-o", out, *options, "--force", "--json")
    assert result.exit_code == 4
    manifest = read_manifest(out)
    assert json.loads(result.stdout) == json.loads((out / "manifest.json").read_text())
    missed = {c.name: c.met for c in manifest.constraints}
    assert missed == {"max_memory": True, "max_drop": False, "max_latency": False}
    assert "max_drop" in result.stderr and "MISSED" in result.stderr and "closest" in result.stderr
    formats = {path: entry.format for path, entry in manifest.recipe.items()}
    assert formats["emb"] == "sign"
    assert formats["blocks.0.att.key"] == "int4-g64"
    assert formats["blocks.1.att.key"] == formats["blocks.1.ffn.key"] == "fp16"
    pinned = {"emb", "blocks.0.att.key", "blocks.1.att.key", "blocks.1.ffn.key"}
    assert {f for path, f in formats.items() if path not in pinned} <= {"int3-g64", "int2-g64"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_flags_win_over_set_over_file_over_defaults(
    tiny_model: Path, slmc: Callable[..., Any], document: Callable[..., Any], tmp_path: Path
) -> None:
    """--max-time delivers the best so far; every run writes its resolved configuration."""
    file = tmp_path / "given.yaml"
    file.write_text("effort: thorough\nseed: 5\nmax-memory: 30%\nmax_drop: 0.001%\nformats: int4-g64\n")
    arguments = ("build", tiny_model, "-o", tmp_path / "out", "-c", file, "--set", "seed=6", "--set", "effort=quick",
                 "--set", "max-drop=50%", "--seed", "7", "--max-time", "10m")  # fmt: skip
    assert document(*arguments, "--dry-run")["evaluations"] > 0
    assert list(tmp_path.iterdir()) == [file], "a dry run writes nothing"
    assert slmc(*arguments).exit_code == 0
    resolved = yaml.safe_load((tmp_path / "out" / "config.resolved.yaml").read_text())
    wanted = {"seed": 7, "effort": "quick", "max_memory": "30%", "max_drop": "50%", "formats": ["int4-g64"],
              "max_time": "10m", "threads": 1, "target": "host"}  # fmt: skip
    assert {key: resolved[key] for key in wanted} == wanted
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert (plan["options"]["seed"], plan["options"]["effort"]) == (7, "quick")
    assert plan["requirements"]["max_drop"] == 0.5
    assert {c["format"] for path, c in plan["recipe"].items() if path != "emb"} == {"int4-g64"}


def test_time_that_is_over_at_once_is_said(tiny_model: Path, fails: Callable[..., None], tmp_path: Path) -> None:
    fails(("search", tiny_model, "-o", tmp_path / "p", "--effort", "quick", "--max-time", "1us", "-q"), 2, "--max-time")
    assert not (tmp_path / "p").exists()
