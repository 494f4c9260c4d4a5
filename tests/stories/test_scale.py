"""Models larger than memory: built from disk, layer by layer, to the very bytes that a build in memory gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from decoders import llama_config
from safetensors.torch import load_file, save_file

from exporters.artifact.errors import SlmcError
from toolchain.calibration.statistics import CalibrationStatistics, gather_statistics
from toolchain.model.decoder import Decoder
from toolchain.pipeline.job import Job, prepare
from toolchain.pipeline.spec import Spec

VOCABULARY = 300
OPTIONS = ("--effort", "quick", "--formats", "int4-g32", "--formats", "int8", "--method", "gptq", "--threads", "1",
    "--transform", "none",)  # fmt: skip  # a model on disk is not rotated


@pytest.fixture(scope="module")
def source(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama in float16."""
    folder = tmp_path_factory.mktemp("scale") / "llama"
    folder.mkdir()
    torch.manual_seed(7)
    module = Decoder(llama_config(2, 32, 48, VOCABULARY, heads=4, groups=2, head_size=8, context=64))
    save_file({f"model.{n}": t.half() for n, t in module.state_dict().items()}, folder / "model.safetensors")
    config = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "model_type": "llama"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_bytes((tiny_model / "tokenizer.json").read_bytes())
    return folder


def test_the_artifact_has_the_same_bytes(source: Path, slmc: Callable[..., Any], tmp_path: Path) -> None:
    notes = []
    for name, room in (("memory", "8GB"), ("disk", "1MB")):
        result = slmc("build", source, "-o", tmp_path / name, *OPTIONS, "--max-build-memory", room, "-v")
        assert result.exit_code == 0, result.stderr
        notes.append("matrices stay on disk" in result.stderr)
    assert notes == [False, True]
    for file in ("model.onnx", "model.onnx.data", "plan.json"):
        assert (tmp_path / "memory" / file).read_bytes() == (tmp_path / "disk" / file).read_bytes(), file


def spec(source: Path, room: str, **more: Any) -> Spec:
    return Spec(model=source, output=Path("unused"), effort="quick", max_build_memory=room, **more)


def gather(job: Job, folder: Path, progress: Callable[[str, int, int], None]) -> CalibrationStatistics:
    return gather_statistics(job.model, job.calibration, folder, progress, seed=job.problem.seed, entropy=False)


def test_statistics_of_either_kind_serve_the_other(source: Path, tmp_path: Path) -> None:
    """A build may be resumed where there is less memory, or more."""
    calls: list[str] = []
    disk, memory = prepare(spec(source, "1MB")), prepare(spec(source, "8GB"))
    gather(disk, tmp_path, lambda stage, done, total: calls.append(stage))
    assert set(calls) == {"calibration", "Fisher information"}
    again = gather(memory, tmp_path, lambda stage, done, total: pytest.fail("gathered once more"))
    (tmp_path / "statistics.safetensors").unlink()
    anew = gather(memory, tmp_path, lambda stage, done, total: None)
    for path in anew.hessians:
        assert torch.equal(anew.hessians[path], again.hessians[path])
        assert torch.equal(anew.fisher[path], again.fisher[path])
    assert load_file(tmp_path / "statistics.safetensors").keys() == {
        *(f"hessian.{p}" for p in again.hessians), *(f"fisher.{p}" for p in again.fisher)
    }  # fmt: skip


@pytest.mark.parametrize(("option", "value"), [("tune", 10), ("shuffle", "2:4")])
def test_what_needs_the_model_in_memory(source: Path, option: str, value: Any) -> None:
    with pytest.raises(SlmcError, match=rf"--{option} needs the whole model in memory, 537 MB.*--max-build-memory"):
        prepare(spec(source, "1MB", **{option: value}))


@pytest.mark.parametrize("room", ["lots", "6", "0GB"])
def test_a_room_that_is_none(source: Path, room: str) -> None:
    with pytest.raises(SlmcError, match="--max-build-memory"):
        prepare(spec(source, room))
