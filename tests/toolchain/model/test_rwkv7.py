"""RWKV-7 against a plain reading of its paper's formulas (arXiv 2503.14456, section 4), in float64, token by token."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import seeded_tensors

from exporters.artifact.errors import SlmcError
from toolchain.model.catalog import load_model

LAYERS, SIZE, HEADS, HIDDEN, VOCABULARY = 3, 16, 2, 24, 31
RANKS = {"w": 3, "a": 4, "v": 2, "g": 5}


def names() -> dict[str, tuple[int, ...]]:
    """Tensors of a checkpoint as released: vectors are [1, 1, size], thin matrices [inputs, outputs]."""
    found: dict[str, tuple[int, ...]] = {"emb.weight": (VOCABULARY, SIZE), "head.weight": (VOCABULARY, SIZE)}
    norms = ["ln_out", "blocks.0.ln0", *(f"blocks.{i}.{n}" for i in range(LAYERS) for n in ("ln1", "ln2", "att.ln_x"))]
    found |= {f"{n}.{p}": (SIZE,) for n in norms for p in ("weight", "bias")}
    for i in range(LAYERS):
        at = f"blocks.{i}.att"
        vectors = ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "w0", "a0", "v0", "k_k", "k_a")
        found |= {f"{at}.{n}": (1, 1, SIZE) for n in vectors} | {f"{at}.r_k": (HEADS, SIZE // HEADS)}
        for n, rank in RANKS.items():
            found |= {f"{at}.{n}1": (SIZE, rank), f"{at}.{n}2": (rank, SIZE)}
        found |= {f"{at}.{n}.weight": (SIZE, SIZE) for n in ("receptance", "key", "value", "output")}
        found[f"blocks.{i}.ffn.x_k"] = (1, 1, SIZE)
        found |= {f"blocks.{i}.ffn.key.weight": (HIDDEN, SIZE), f"blocks.{i}.ffn.value.weight": (SIZE, HIDDEN)}
    return found


def tensors() -> dict[str, torch.Tensor]:
    return seeded_tensors(names(), 11)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def norm(x: np.ndarray, w: dict[str, np.ndarray], name: str) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def plain(ids: list[int]) -> np.ndarray:
    """Logits [T, V] by the formulas, each head for itself."""
    w = {name: (t.double().numpy().reshape(-1) if t.ndim == 3 else t.double().numpy()) for name, t in tensors().items()}
    width = SIZE // HEADS
    last = {(i, part): np.zeros(SIZE) for i in range(LAYERS) for part in ("att", "ffn")}
    states = np.zeros((LAYERS, HEADS, width, width))
    logits = []
    for token in ids:
        x = norm(w["emb.weight"][token], w, "blocks.0.ln0")
        for i in range(LAYERS):
            at, y = f"blocks.{i}.att", norm(x, w, f"blocks.{i}.ln1")
            mixed = {n: y + (last[i, "att"] - y) * w[f"{at}.x_{n}"] for n in "rwkvag"}
            last[i, "att"] = y
            r, k, v = (w[f"{at}.{n}.weight"] @ mixed[n[0]] for n in ("receptance", "key", "value"))
            d = w[f"{at}.w0"] + np.tanh(mixed["w"] @ w[f"{at}.w1"]) @ w[f"{at}.w2"]
            decay = np.exp(-np.exp(-np.log1p(np.exp(-d)) - 0.5))
            rate = sigmoid(w[f"{at}.a0"] + mixed["a"] @ w[f"{at}.a1"] @ w[f"{at}.a2"])
            gate = sigmoid(mixed["g"] @ w[f"{at}.g1"]) @ w[f"{at}.g2"]
            if i == 0:
                first = v
            else:
                v = v + (first - v) * sigmoid(w[f"{at}.v0"] + mixed["v"] @ w[f"{at}.v1"] @ w[f"{at}.v2"])
            removed, k = k * w[f"{at}.k_k"], k * (1 + (rate - 1) * w[f"{at}.k_a"])
            out = np.zeros(SIZE)
            for h in range(HEADS):
                part = slice(h * width, (h + 1) * width)
                unit = removed[part] / np.linalg.norm(removed[part])
                S = states[i, h]
                S = S @ (np.diag(decay[part]) - np.outer(unit, unit * rate[part])) + np.outer(v[part], k[part])
                states[i, h] = S
                y = S @ r[part]
                y = (y - y.mean()) / np.sqrt(y.var() + 64e-5) * w[f"{at}.ln_x.weight"][part] + w[f"{at}.ln_x.bias"][
                    part
                ]
                out[part] = y + (r[part] * k[part] * w[f"{at}.r_k"][h]).sum() * v[part]
            x = x + w[f"{at}.output.weight"] @ (out * gate)
            y = norm(x, w, f"blocks.{i}.ln2")
            mix = y + (last[i, "ffn"] - y) * w[f"blocks.{i}.ffn.x_k"]
            last[i, "ffn"] = y
            above = np.maximum(w[f"blocks.{i}.ffn.key.weight"] @ mix, 0) ** 2
            x = x + w[f"blocks.{i}.ffn.value.weight"] @ above
        logits.append(w["head.weight"] @ norm(x, w, "ln_out"))
    return np.array(logits)


def file(at: Path, tiny_model: Path, found: dict[str, torch.Tensor]) -> Path:
    """A bare .pth as it is released, with a tokenizer beside it."""
    torch.save(found, at / "RWKV-x070-tiny.pth")
    tokenizer = json.loads((tiny_model / "tokenizer.json").read_bytes())
    keep = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__)[:VOCABULARY]
    tokenizer["model"] |= {"vocab": {token: i for i, token in enumerate(keep)}, "merges": []}
    (at / "tokenizer.json").write_text(json.dumps(tokenizer | {"added_tokens": [], "post_processor": None}))
    return at / "RWKV-x070-tiny.pth"


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_logits(tmp_path: Path, tiny_model: Path, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = {n: t.to(kind) for n, t in tensors().items()}
    model = load_model(file(tmp_path, tiny_model, stored))
    assert model.tree.family == "rwkv7"
    monkeypatch.setitem(globals(), "tensors", lambda: {n: t.float() for n, t in stored.items()})
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    expected = plain(ids)
    logits, _ = model.forward(torch.tensor([ids]), model.forward.initial_state())
    np.testing.assert_allclose(logits[0], expected, atol=1e-5 * np.abs(expected).max())
    state, steps = model.forward.initial_state(), []
    for piece in torch.tensor([ids]).split([1, 3, 4], 1):
        y, state = model.forward(piece, state)
        steps.append(y)
    np.testing.assert_allclose(torch.cat(steps, 1)[0], expected, atol=1e-5 * np.abs(expected).max())


def test_layers(tmp_path: Path, tiny_model: Path) -> None:
    """Thin matrices are layers like others; the first block mixes no values, whose tensors may be there or not."""
    found = tensors()
    for left_out in ((), ("blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2")):
        model = load_model(file(tmp_path, tiny_model, {n: t for n, t in found.items() if n not in left_out}))
        shapes = {x.path: (x.rows, x.cols) for x in model.tree.layers}
        assert shapes["blocks.1.att.w1"] == (3, SIZE) and shapes["blocks.1.att.w2"] == (SIZE, 3)
        assert "blocks.0.att.v1" not in shapes and len(shapes) == 2 + LAYERS * 14 - 2


def test_refused(tmp_path: Path, tiny_model: Path) -> None:
    odd = tensors() | {f"blocks.{i}.att.r_k": torch.ones(3, 4) for i in range(LAYERS)}
    with pytest.raises(SlmcError, match="3 heads of width 4, but the weights are 16 wide"):
        load_model(file(tmp_path, tiny_model, odd))
