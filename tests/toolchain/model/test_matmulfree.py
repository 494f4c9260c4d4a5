"""MatMul-free models beside the paper's formulas written out in NumPy (arXiv 2406.02528, section 3), float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from seeded import seeded_tensors

from exporters.artifact.errors import SlmcError
from toolchain.model.catalog import load_model
from toolchain.model.matmulfree import MatMulFree, MatMulFreeConfig, MatMulFreeFamily

LAYERS, SIZE, HIDDEN, VOCABULARY = 3, 24, 40, 31
Weights = dict[str, np.ndarray]


def names(ternary_head: bool) -> dict[str, tuple[int, ...]]:
    """Tensors of a checkpoint as the authors' package names them."""
    found: dict[str, tuple[int, ...]] = {
        "model.embeddings.weight": (VOCABULARY, SIZE), "model.lower_bounds": (LAYERS, SIZE),
        "model.norm.weight": (SIZE,), "lm_head.weight": (VOCABULARY, SIZE),
    }  # fmt: skip
    if ternary_head:
        found["lm_head.norm.weight"] = (SIZE,)
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        found |= {f"{at}.{n}.weight": (SIZE,) for n in ("attn_norm", "mlp_norm", "attn.g_norm")}
        for name, shape in (
            *((f"attn.{p}_proj", (SIZE, SIZE)) for p in "ifgo"), ("mlp.gate_proj", (2 * HIDDEN, SIZE)),
            ("mlp.down_proj", (SIZE, HIDDEN)),
        ):  # fmt: skip
            found |= {f"{at}.{name}.weight": shape, f"{at}.{name}.norm.weight": (shape[1],)}
    return found


def rms(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean() + 1e-6) * weight


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def bit(x: np.ndarray, w: Weights, at: str) -> np.ndarray:
    """Norm, inputs of 8 bits with one step, weights -a, 0, a."""
    y = rms(x, w[f"{at}.norm.weight"])
    steps = 127 / max(np.abs(y).max(), 1e-5)
    weight = w[f"{at}.weight"]
    mean = max(np.abs(weight).mean(), 1e-5)
    return mean * np.clip(np.rint(weight / mean), -1, 1) @ (np.clip(np.rint(y * steps), -128, 127) / steps)


def plain(tensors: dict[str, torch.Tensor], ids: list[int], ternary_head: bool) -> np.ndarray:
    """Logits [T, V], token by token."""
    w = {name.removeprefix("model."): t.double().numpy() for name, t in tensors.items()}
    shares = np.exp(w["lower_bounds"]) / np.exp(w["lower_bounds"]).sum(0)
    bounds = np.cumsum(shares, 0) - shares[0]
    states = [np.zeros(SIZE) for _ in range(LAYERS)]
    logits = []
    for token in ids:
        x = w["embeddings.weight"][token]
        for i in range(LAYERS):
            at = f"layers.{i}"
            y = rms(x, w[f"{at}.attn_norm.weight"])
            kept = sigmoid(bit(y, w, f"{at}.attn.f_proj"))
            kept = bounds[i] + (1 - bounds[i]) * kept if i else kept
            current = bit(y, w, f"{at}.attn.i_proj")
            states[i] = kept * states[i] + (1 - kept) * current * sigmoid(current)
            gate = rms(bit(y, w, f"{at}.attn.g_proj"), w[f"{at}.attn.g_norm.weight"])
            x = x + bit(gate * states[i] * sigmoid(states[i]), w, f"{at}.attn.o_proj")
            u, v = np.split(bit(rms(x, w[f"{at}.mlp_norm.weight"]), w, f"{at}.mlp.gate_proj"), 2)
            x = x + bit(u * sigmoid(u) * v, w, f"{at}.mlp.down_proj")
        x = rms(x, w["norm.weight"])
        logits.append(bit(x, w, "lm_head") if ternary_head else w["lm_head.weight"] @ x)
    return np.array(logits)


def folder(at: Path, tiny_model: Path, ternary_head: bool, **config: Any) -> Path:
    tensors = seeded_tensors(names(ternary_head), 5)
    save_file(tensors, at / "model.safetensors")
    said = {"model_type": "hgrn_bit", "hidden_size": SIZE, "num_heads": 1, "hidden_ratio": 4, "expand_ratio": 1}
    (at / "config.json").write_text(json.dumps(said | config))
    tokenizer = json.loads((tiny_model / "tokenizer.json").read_bytes())
    keep = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__)[:VOCABULARY]
    tokenizer["model"] |= {"vocab": {token: i for i, token in enumerate(keep)}, "merges": []}
    (at / "tokenizer.json").write_text(json.dumps(tokenizer | {"added_tokens": [], "post_processor": None}))
    return at


@pytest.mark.parametrize("ternary_head", [False, True])
@pytest.mark.parametrize("room", [None, 0], ids=["in memory", "from disk"])
def test_logits(tmp_path: Path, tiny_model: Path, ternary_head: bool, room: int | None) -> None:
    """A code next to the rounding edge may fall to either side; over these tokens none does."""
    model = load_model(folder(tmp_path, tiny_model, ternary_head), room=room)
    ids = [3, 1, 4, 1, 5, 9, 2, 6, 30, 0]
    logits, _ = model.forward(torch.tensor([ids]), model.forward.initial_state())
    expected = plain(seeded_tensors(names(ternary_head), 5), ids, ternary_head)
    np.testing.assert_allclose(logits[0], expected, atol=1e-4)
    state, steps = model.forward.initial_state(), []
    for token in ids:
        y, state = model.forward(torch.tensor([[token]]), state)
        steps.append(y)
    np.testing.assert_allclose(torch.cat(steps, 1)[0], expected, atol=1e-4)


def test_matrices_are_ternary_and_stay_so(tmp_path: Path, tiny_model: Path) -> None:
    model = load_model(folder(tmp_path, tiny_model, False))
    exact = {layer.path for layer in model.tree.layers if layer.exact == "ternary"}
    assert len(exact) == 6 * LAYERS and "lm_head.linear" not in exact
    for path in exact:
        values = model.weight(path).unique()
        assert len(values) == 3 and values[1] == 0 and values[0] == -values[2]


def test_without_lower_bounds(tmp_path: Path, tiny_model: Path) -> None:
    at = folder(tmp_path, tiny_model, False, use_lower_bound=False)
    tensors = {n: t for n, t in seeded_tensors(names(False), 5).items() if n != "model.lower_bounds"}
    save_file(tensors, at / "model.safetensors")
    model = load_model(at).module
    assert isinstance(model, MatMulFree) and model.bounds() == [None] * LAYERS


def test_size_of_a_release() -> None:
    """MMfreeLM-370M: 374 M values, 308 M of them ternary."""
    config = MatMulFreeConfig(layers=24, hidden_size=1024, intermediate_size=2816, vocabulary=32000)
    with torch.device("meta"):
        model = MatMulFree(config)
    tree = MatMulFreeFamily().tree(model)
    assert sum(x.params for x in tree.layers if x.exact) == 24 * (4 * 1024**2 + 3 * 1024 * 2816)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(374.1e6, rel=1e-3)


@pytest.mark.parametrize(
    ("config", "said"),
    [({"use_short_conv": True}, "use_short_conv is True"), ({"intermediate_size": 41}, "but the weights have 40")],
)
def test_refused(tmp_path: Path, tiny_model: Path, config: dict[str, Any], said: str) -> None:
    with pytest.raises(SlmcError, match=said):
        load_model(folder(tmp_path, tiny_model, False, **config))
