"""Which family a checkpoint belongs to: config, tensors, the user's word and evidence; never the name of its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.model.catalog import load_model
from toolchain.model.family import ModelOptions

Tensors = dict[str, Tensor]
SAMPLE = Path(__file__).parents[3] / "samples/spikegpt-6m"


def refusal(path: Path, tokenizer: Path | None = None, family: str | None = None) -> str:
    with pytest.raises(SlmcError) as caught:
        load_model(path, tokenizer, ModelOptions(family=family))
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("name", ["rwkv-4.pth", "rwkv-final.pth", "RWKV-4-Pile-169M.pth"])
def test_the_same_bytes_under_any_name_are_the_same_model_by_evidence(tmp_path: Path, name: str) -> None:
    torch.save(load_file(SAMPLE / "model.safetensors"), tmp_path / name)
    model = load_model(tmp_path / name, SAMPLE / "tokenizer.json")
    assert model.tree.family == "spikegpt"
    assert len(model.notes) == 1
    words = ("family spikegpt, by evidence: perplexity on 256 tokens of our calibration text: spikegpt ", ", rwkv ")
    assert all(word in model.notes[0] for word in (*words, "--family"))


def test_without_evidence_the_user_is_asked(tmp_path: Path, tensors: Tensors, tokenizer_path: Path) -> None:
    torch.save(tensors, tmp_path / "rwkv-4.pth")
    said = refusal(tmp_path / "rwkv-4.pth", tokenizer_path)
    assert "rwkv-4.pth: several families have these tensors, and our calibration text does not tell them apart" in said
    assert "say which it is with --family " in said and "--family rwkv" in said and "--family spikegpt" in said
    for family in ("rwkv", "spikegpt"):
        asked = load_model(tmp_path / "rwkv-4.pth", tokenizer_path, ModelOptions(family=family))
        assert (asked.tree.family, asked.notes) == (family, ())


@pytest.mark.parametrize("model_type", ["spikegpt", "rwkv", "rwkv4"])
def test_a_config_that_names_the_family_decides(folder: Path, model_type: str) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    model = load_model(folder)
    assert (model.tree.family, model.notes) == (model_type.removesuffix("4"), ())
    assert load_model(folder, options=ModelOptions(family=model.tree.family)).tree.family == model.tree.family


def test_a_family_that_contradicts_the_config_is_refused(folder: Path) -> None:
    said = refusal(folder, family="rwkv")
    assert "--family rwkv: config.json says model_type 'spikegpt', and its tensors are those of family spikegpt" in said


def test_a_family_that_does_not_fit_the_tensors_is_refused(
    tmp_path: Path, tensors: Tensors, tokenizer_path: Path
) -> None:
    torch.save(tensors, tmp_path / "m.pth")
    said = refusal(tmp_path / "m.pth", tokenizer_path, "llama")
    assert "--family llama: its tensors are those of family spikegpt, rwkv; leave the option out" in said


def test_a_family_that_nobody_knows(folder: Path) -> None:
    said = refusal(folder, family="mamba")
    assert said.startswith("--family mamba: no such family; known are spikegpt, llama, qwen3, ")


def test_a_classifier_is_of_the_family_that_has_some(tmp_path: Path, tensors: Tensors, tokenizer_path: Path) -> None:
    del tensors["head.weight"]
    torch.save(tensors | {"classifier.weight": torch.ones(2, 4)}, tmp_path / "m.pth")
    model = load_model(tmp_path / "m.pth", tokenizer_path)
    assert (model.tree.family, model.notes, model.classes is not None) == ("spikegpt", (), True)


def test_a_wrong_option_is_not_evidence_for_another_family(folder: Path) -> None:
    (folder / "config.json").write_text('{"layers": 12}')
    assert "config.json: layers is 12, but the weights have 2" in refusal(folder)


@pytest.mark.parametrize("family", ["spikegpt", "rwkv"])
def test_a_padded_vocabulary_is_usual_in_every_family(
    folder: Path, tensors: Tensors, write_tokenizer: Callable[[Path, int], Path], family: str
) -> None:
    for name in ("emb.weight", "head.weight"):
        tensors[name] = torch.cat([tensors[name], torch.zeros(7, 4)])
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    model = load_model(folder)
    assert (model.tree.vocabulary, model.tokenizer.get_vocab_size()) == (16, 9)
