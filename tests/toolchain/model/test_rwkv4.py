"""RWKV-4 against a plain reading of its paper's formulas (arXiv 2305.13048, section 3), in float64, token by token."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from exporters.artifact.errors import SlmcError
from toolchain.model.catalog import load_model
from toolchain.model.family import ModelOptions

Tensors = dict[str, torch.Tensor]
WIDTH, VOCABULARY = 4, 9


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def norm(x: np.ndarray, w: dict[str, np.ndarray], name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def mixed(x: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """mu x_t + (1 - mu) x_(t-1), with nothing before the first token; x [T, C]."""
    before = np.concatenate([np.zeros((1, x.shape[1])), x[:-1]])
    return mix.reshape(-1) * x + (1 - mix.reshape(-1)) * before


def time_mix(x: np.ndarray, w: dict[str, np.ndarray], at: str) -> np.ndarray:
    r, k, v = (mixed(x, w[f"{at}.time_mix_{n[0]}"]) @ w[f"{at}.{n}.weight"].T for n in ("receptance", "key", "value"))
    decay, bonus = np.exp(w[f"{at}.time_decay"]), w[f"{at}.time_first"]
    y = np.empty_like(v)
    for t in range(len(x)):
        weights = np.exp([-(t - 1 - i) * decay + k[i] for i in range(t)] + [bonus + k[t]])
        y[t] = (weights * v[: t + 1]).sum(0) / weights.sum(0)
    return (sigmoid(r) * y) @ w[f"{at}.output.weight"].T


def channel_mix(x: np.ndarray, w: dict[str, np.ndarray], at: str) -> np.ndarray:
    r = mixed(x, w[f"{at}.time_mix_r"]) @ w[f"{at}.receptance.weight"].T
    k = mixed(x, w[f"{at}.time_mix_k"]) @ w[f"{at}.key.weight"].T
    return sigmoid(r) * (np.maximum(k, 0) ** 2 @ w[f"{at}.value.weight"].T)


def plain(tensors: Tensors, ids: list[int]) -> np.ndarray:
    """Logits [T, V] by the formulas."""
    w = {name: t.double().numpy() for name, t in tensors.items()}
    x = norm(w["emb.weight"][ids], w, "blocks.0.ln0")
    for i in range(2):
        x = x + time_mix(norm(x, w, f"blocks.{i}.ln1"), w, f"blocks.{i}.att")
        x = x + channel_mix(norm(x, w, f"blocks.{i}.ln2"), w, f"blocks.{i}.ffn")
    return norm(x, w, "ln_out") @ w["head.weight"].T


@pytest.fixture
def rwkv(folder: Path) -> Path:
    (folder / "config.json").write_text('{"model_type": "rwkv"}')
    return folder


IDS = [int(i) for i in np.random.default_rng(3).integers(0, VOCABULARY, 17)]


@pytest.mark.parametrize("sizes", [(17,), (1,) * 17, (5, 1, 11)], ids=["whole", "single", "chunks"])
def test_logits_by_the_formulas(rwkv: Path, tensors: Tensors, sizes: tuple[int, ...]) -> None:
    model = load_model(rwkv).forward
    state, parts = model.initial_state(), []
    with torch.inference_mode():
        for start, stop in itertools.pairwise(itertools.accumulate(sizes, initial=0)):
            logits, state = model(torch.tensor([IDS[start:stop]]), state)
            parts.append(logits[0])
    np.testing.assert_allclose(torch.cat(parts).numpy(), plain(tensors, IDS), atol=1e-4)


def test_an_official_checkpoint_is_read_as_asked(tmp_path: Path, tensors: Tensors, tokenizer_path: Path) -> None:
    halves = {name: t.bfloat16() for name, t in tensors.items()}
    torch.save(halves, tmp_path / "RWKV-4-Pile-tiny-20220807.pth")
    model = load_model(tmp_path / "RWKV-4-Pile-tiny-20220807.pth", tokenizer_path, ModelOptions(family="rwkv"))
    with torch.inference_mode():
        logits, _ = model.forward(torch.tensor([IDS]), model.forward.initial_state())
    np.testing.assert_allclose(logits[0].numpy(), plain(halves, IDS), atol=1e-4)
    assert model.tree.params == sum(t.numel() for t in tensors.values())


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_hidden_layers": 3}, "num_hidden_layers is 3, but the weights have 2"),
        ({"vocab_size": 8}, "vocab_size is 8, but the weights have 9"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06, which is not supported"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is True, which is not supported"),
    ],
)
def test_configs_that_are_not_supported(folder: Path, config: dict[str, Any], said: str) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "rwkv"} | config))
    with pytest.raises(SlmcError, match=said):
        load_model(folder)


def test_a_missing_tensor_is_named(rwkv: Path, tensors: Tensors, write_tokenizer: Callable[[Path, int], Path]) -> None:
    del tensors["blocks.1.att.time_first"]
    save_file(tensors, rwkv / "model.safetensors")
    with pytest.raises(SlmcError, match=r"1 tensors missing, 0 unknown \(missing blocks.1.att.time_first\)"):
        load_model(rwkv)
