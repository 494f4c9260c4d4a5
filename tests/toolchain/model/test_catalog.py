"""Opening a model: a directory or a bare checkpoint, and everything that can be wrong with either."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.model.catalog import load_model
from toolchain.model.family import ModelOptions
from toolchain.model.spikegpt import SpikeGpt, SpikeGptConfig

Tensors = dict[str, Tensor]
SPIKING = ModelOptions(family="spikegpt")
TokenizerWriter = Callable[[Path, int], Path]


@pytest.fixture
def released(tmp_path: Path, tensors: Tensors) -> Path:
    """A bare checkpoint as released: a flat state dict, time mixes [1, 1, width]."""
    assert tensors["blocks.0.att.time_mix_k"].shape == (1, 1, 4)
    torch.save(tensors, tmp_path / "SpikeGPT-tiny.pth")
    return tmp_path / "SpikeGPT-tiny.pth"


def refusal(path: Path, tokenizer: Path | None = None, family: str | None = None) -> str:
    with pytest.raises(SlmcError) as caught:
        load_model(path, tokenizer, ModelOptions(family=family))
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_sizes_of_a_released_checkpoint_come_from_its_tensors(
    released: Path, tensors: Tensors, tokenizer_path: Path
) -> None:
    model = load_model(released, tokenizer_path, SPIKING)
    assert isinstance(model.module, SpikeGpt)
    assert model.module.config == SpikeGptConfig(2, 4, 12, 9)
    assert model.name == "SpikeGPT-tiny"
    assert model.tokenizer_json == tokenizer_path.read_bytes()
    assert model.tree.params == sum(t.numel() for t in tensors.values())
    assert all(torch.equal(p, tensors[name]) for name, p in model.module.named_parameters())
    assert torch.equal(model.weight("blocks.1.ffn.value"), tensors["blocks.1.ffn.value.weight"])


def test_a_checkpoint_nested_in_a_training_state_opens_too(
    tmp_path: Path, tensors: Tensors, tokenizer_path: Path
) -> None:
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "nested.pth")
    assert load_model(tmp_path / "nested.pth", tokenizer_path, SPIKING).tree.params == 528


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrapping_modules_are_left_away(
    tmp_path: Path, tensors: Tensors, tokenizer_path: Path, prefix: str
) -> None:
    torch.save({prefix + name: t for name, t in tensors.items()}, tmp_path / "wrapped.pth")
    model = load_model(tmp_path / "wrapped.pth", tokenizer_path, SPIKING)
    assert torch.equal(model.weight("blocks.0.att.key"), tensors["blocks.0.att.key.weight"])


def test_a_directory_brings_its_config_and_tokenizer(folder: Path, tensors: Tensors) -> None:
    model = load_model(folder)
    assert isinstance(model.module, SpikeGpt)
    assert model.module.config == SpikeGptConfig(2, 4, 12, 9, embed_binarize=False, rescale_every=2)
    assert model.name == "tiny-1.5"
    assert model.tokenizer_json == (folder / "tokenizer.json").read_bytes()
    assert model.tokenizer.encode("w3 w0 nonsense w8").ids == [3, 0, 0, 8]
    assert model.tree.layers[0].exact is None


def test_the_model_is_in_inference_float32_and_answers(folder: Path, tensors: Tensors) -> None:
    save_file({name: t.half() for name, t in tensors.items()}, folder / "model.safetensors")
    model = load_model(folder)
    assert not model.module.training
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in model.module.parameters())
    logits, _ = model.forward(torch.tensor([[1, 2, 3]]), model.forward.initial_state())
    assert logits.shape == (1, 3, 9)
    assert torch.isfinite(logits).all()


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    assert "nowhere.pth: no such file or directory" in refusal(tmp_path / "nowhere.pth")


def test_a_foreign_checkpoint_is_described(tmp_path: Path, tokenizer_path: Path) -> None:
    torch.save({"transformer.wte.weight": torch.ones(4, 2), "lm_head.weight": torch.ones(4, 2)}, tmp_path / "gpt2.pth")
    said = refusal(tmp_path / "gpt2.pth", tokenizer_path)
    assert "gpt2.pth: no known model family" in said
    assert "transformer.wte.weight" in said
    assert "spikegpt" in said


def test_a_config_that_names_another_family_is_believed(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "mamba"}')
    said = refusal(folder)
    assert "no known model family; config.json says model_type 'mamba', found 528 values in " in said
    assert "blocks.*.att.time_decay x 2" in said
    assert "known families: spikegpt, llama, qwen3, " in said


def test_missing_and_unknown_tensors_are_named(folder: Path, tensors: Tensors) -> None:
    del tensors["blocks.1.att.time_first"], tensors["head.weight"]
    tensors["head_q.weight"] = torch.ones(2, 2)
    save_file(tensors, folder / "model.safetensors")
    said = refusal(folder)
    assert "model.safetensors: 2 tensors missing, 1 unknown" in said
    assert "missing blocks.1.att.time_first, head.weight; unknown head_q.weight" in said


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blocks.1.att.key.weight", (5, 4)),
        ("blocks.0.att.time_decay", (1, 4)),
        ("blocks.0.att.time_mix_k", (4,)),
        ("ln_out.bias", ()),
    ],
)
def test_a_tensor_of_the_wrong_shape_is_named(
    folder: Path, tensors: Tensors, name: str, shape: tuple[int, ...]
) -> None:
    found = list(tensors[name].shape)
    tensors[name] = torch.ones(shape)
    save_file(tensors, folder / "model.safetensors")
    assert f"model.safetensors: {name} has shape {list(shape)}, expected {found}" in refusal(folder)


@pytest.mark.parametrize("name", ["emb.weight", "blocks.0.ffn.key.weight"])
@pytest.mark.parametrize("shape", [(), (4,), (9, 4, 1), (0, 4)])
def test_the_tensors_that_sizes_come_from_must_be_matrices(
    tmp_path: Path, tensors: Tensors, tokenizer_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    tensors[name] = torch.ones(shape)
    torch.save(tensors, tmp_path / "m.pth")
    said = refusal(tmp_path / "m.pth", tokenizer_path)
    assert f"m.pth: {name} has shape {list(shape)}, expected a matrix" in said


@pytest.mark.parametrize("index", ["7", "999999"])
def test_blocks_with_gaps_are_refused_before_anything_is_built(
    tmp_path: Path, tensors: Tensors, tokenizer_path: Path, index: str
) -> None:
    renamed = {name.replace("blocks.1.", f"blocks.{index}."): t for name, t in tensors.items()}
    torch.save(renamed, tmp_path / "m.pth")
    assert f"m.pth: the weights have blocks [0, {index}]" in refusal(tmp_path / "m.pth", tokenizer_path)


def test_nan_weights_are_refused(folder: Path, tensors: Tensors) -> None:
    tensors["head.weight"][2, 1] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    assert "model.safetensors: head.weight holds 1 values that are NaN" in refusal(folder)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "spoilt",
    [
        torch.ones(9, 4, dtype=torch.int8),
        torch.ones(9, 4, dtype=torch.complex64),
        torch.ones(9, 4).to(torch.float8_e4m3fn),
        torch.ones(9, 4).to_sparse(),
        torch.empty(9, 4, device="meta"),
    ],
    ids=["int8", "complex", "float8", "sparse", "meta"],
)
def test_weights_that_are_no_plain_floats_are_refused(
    tmp_path: Path, tensors: Tensors, tokenizer_path: Path, spoilt: Tensor
) -> None:
    torch.save(tensors | {"head.weight": spoilt}, tmp_path / "m.pth")
    said = refusal(tmp_path / "m.pth", tokenizer_path)
    assert "m.pth: head.weight is no plain float tensor" in said
    assert "save the model as float32" in said


def test_a_config_that_contradicts_the_weights_is_named(folder: Path) -> None:
    (folder / "config.json").write_text('{"layers": 12}')
    said = refusal(folder)
    assert str(folder) in said
    assert "config.json: layers is 12, but the weights have 2" in said


@pytest.mark.parametrize(
    "raw", [b"{layers: 2}", b"", b"\xff\xfe{}", b"[" * 100_000, b'{"layers": ' + b"9" * 5000 + b"}"]
)
def test_a_config_that_is_not_json(folder: Path, raw: bytes) -> None:
    (folder / "config.json").write_bytes(raw)
    assert re.search(r"config\.json: not (JSON \(|UTF-8 text \()", refusal(folder))


@pytest.mark.parametrize("content", [[1], "x", None, 3])
def test_a_config_must_be_an_object(folder: Path, content: Any) -> None:
    (folder / "config.json").write_text(json.dumps(content))
    assert f"config.json: expected an object, found {type(content).__name__}" in refusal(folder)


def test_a_directory_without_a_config_opens_by_its_weights(folder: Path) -> None:
    (folder / "config.json").unlink()
    model = load_model(folder, options=SPIKING)
    assert isinstance(model.module, SpikeGpt)
    assert model.module.config == SpikeGptConfig(2, 4, 12, 9)


def test_a_directory_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "expected one weights file" in refusal(folder)


def test_a_directory_with_two_candidates(folder: Path, tensors: Tensors) -> None:
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    torch.save(tensors, folder / "two.pth")
    assert "found several (one.safetensors, two.pth)" in refusal(folder)


def test_a_bare_checkpoint_without_a_tokenizer_says_how_to_give_one(released: Path) -> None:
    assert "tokenizer.json: no such tokenizer file; give one with --tokenizer FILE" in refusal(released)


def test_a_tokenizer_of_another_vocabulary(released: Path, tmp_path: Path, write_tokenizer: TokenizerWriter) -> None:
    other = write_tokenizer(tmp_path / "other.json", 10)
    assert "other.json: the tokenizer has 10 entries, the model's vocabulary 9" in refusal(released, other)


def test_a_given_tokenizer_wins_over_the_one_in_the_directory(
    folder: Path, tmp_path: Path, write_tokenizer: TokenizerWriter
) -> None:
    other = write_tokenizer(tmp_path / "other.json", 9)
    assert load_model(folder, other).tokenizer_json == other.read_bytes()
