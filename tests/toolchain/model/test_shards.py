"""Checkpoints in shards: what the index and the files may do to each other, all of it found before any work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from exporters.artifact.errors import SlmcError
from toolchain.model.catalog import load_model
from toolchain.model.weights import find_weights, read_checkpoint

Tensors = dict[str, torch.Tensor]
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def sharded(folder: Path, tensors: Tensors) -> Path:
    """The tiny model in two shards."""
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {name: FIRST if i < 20 else SECOND for i, name in enumerate(names)}
    for file in (FIRST, SECOND):
        save_file({name: tensors[name] for name in names if places[name] == file}, folder / file)
    write_index(folder, places)
    return folder


def write_index(folder: Path, places: Any) -> None:
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": places})
    (folder / "model.safetensors.index.json").write_text(text)


def places_of(folder: Path) -> dict[str, str]:
    places: dict[str, str] = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    return places


def refusal(folder: Path) -> str:
    with pytest.raises(SlmcError) as caught:
        load_model(folder)
    return str(caught.value)


def test_the_model_is_the_same_as_in_one_file(sharded: Path, tensors: Tensors) -> None:
    model = load_model(sharded)
    assert all(torch.equal(p, tensors[name]) for name, p in model.module.named_parameters())
    again = read_checkpoint(find_weights(sharded)).sha256
    assert model.sha256 == again and len(again) == 64


def test_the_digest_depends_on_every_shard(sharded: Path, tensors: Tensors) -> None:
    before = load_model(sharded).sha256
    second = {name: tensors[name] for name, file in places_of(sharded).items() if file == SECOND}
    save_file({name: t + 1 for name, t in second.items()}, sharded / SECOND)
    assert load_model(sharded).sha256 != before


@pytest.mark.parametrize("keep", [0, 5, 100, -4])
def test_a_truncated_shard(sharded: Path, keep: int) -> None:
    raw = (sharded / SECOND).read_bytes()
    (sharded / SECOND).write_bytes(raw[:keep])
    said = refusal(sharded)
    assert f"{SECOND}: no readable safetensors file" in said and "copy it again" in said


def test_a_missing_shard(sharded: Path) -> None:
    (sharded / FIRST).unlink()
    assert f"index.json: names the shard {FIRST}, which is not there" in refusal(sharded)


def test_an_index_that_promises_too_much(sharded: Path) -> None:
    write_index(sharded, places_of(sharded) | {"blocks.2.ln1.bias": SECOND})
    assert f"the shard {SECOND} does not hold blocks.2.ln1.bias, unlike the index says" in refusal(sharded)


def test_an_index_that_keeps_something_back(sharded: Path) -> None:
    places = places_of(sharded)
    del places["emb.weight"]
    write_index(sharded, places)
    assert "also holds emb.weight, unlike the index says" in refusal(sharded)


def test_an_index_that_mixes_the_shards_up(sharded: Path) -> None:
    other = {FIRST: SECOND, SECOND: FIRST}
    write_index(sharded, {name: other[file] for name, file in places_of(sharded).items()})
    assert "does not hold" in refusal(sharded)


@pytest.mark.parametrize("file", ["../model-00001-of-00002.safetensors", "/etc/passwd", "a/b.safetensors", ""])
def test_a_shard_elsewhere_is_refused(sharded: Path, file: str) -> None:
    write_index(sharded, {"emb.weight": file})
    assert "does not lie beside the index; refused" in refusal(sharded) or "not there" in refusal(sharded)


@pytest.mark.parametrize(
    "raw", ["", "[", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', '{"weight_map": 3}']
)
def test_an_index_that_is_none(sharded: Path, raw: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(raw)
    said = refusal(sharded)
    assert "index.json: not JSON" in said or "index.json: no weight_map of tensor names to files" in said


def test_torch_shards(folder: Path, tensors: Tensors, write_tokenizer: Callable[[Path, int], Path]) -> None:
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {name: f"pytorch_model-0000{i % 2 + 1}-of-00002.bin" for i, name in enumerate(names)}
    for file in set(places.values()):
        torch.save({name: tensors[name] for name in names if places[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    assert all(torch.equal(p, tensors[name]) for name, p in load_model(folder).module.named_parameters())
