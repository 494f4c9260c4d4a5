"""SpikingBrain beside its released modules, run elsewhere on seeded weights with plain forms of their GPU kernels: the
recurrence step by step, attention over a distance of the window at most, RMSNorm, silu."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from seeded import seeded_tensors
from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.calibration.activity import input_activity
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.spike_counts import codes_of_8_bits, spikes

RECORDED = np.load(Path(__file__).with_name("released") / "spikingbrain.npz")
"""Tokens [20] and logits [20, 31]; windows of 7 bind."""

COMMON = {"model_type": "gla_swa", "vocab_size": 31, "max_position_embeddings": 64, "sliding_window": 7}
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "plain": (
        {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
         "num_hidden_layers": 4}, 11,
    ),
    "spiking": (
        {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96,
         "num_hidden_layers": 4, "rope_theta": 10000.0}, 12,
    ),
    "spiking-wide": (
        {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 64,
         "num_hidden_layers": 3, "norm_eps": 1e-5}, 13,
    ),
}  # fmt: skip


def tensors_of(name: str) -> dict[str, Tensor]:
    """A checkpoint as released: gates of two matrices, or scales of groups of 128 beside every projection."""
    c, seed = CASES[name]
    width, hidden, spiking = c["hidden_size"], c["intermediate_size"], name != "plain"
    size = width // c["num_attention_heads"]
    shared = size * c["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embeddings.weight": (31, width), "model.norm.weight": (width,), "lm_head.weight": (31, width),
    }  # fmt: skip
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}"
        matrices = {"attn.q_proj": (width, width), "attn.k_proj": (shared, width), "attn.v_proj": (shared, width)}
        biased = set(matrices)
        matrices |= {"attn.o_proj": (width, width), "mlp.gate_proj": (hidden, width), "mlp.up_proj": (hidden, width)}
        if i % 2 == 0:
            shapes[f"{at}.attn.g_norm.weight"] = (size,)
            if spiking:
                matrices["attn.gk_proj"] = (shared, width)
                biased.add("attn.gk_proj")
            else:
                shapes[f"{at}.attn.gk_proj.0.weight"] = (16, width)
                shapes[f"{at}.attn.gk_proj.1.weight"], shapes[f"{at}.attn.gk_proj.1.bias"] = (shared, 16), (shared,)
        shapes |= {f"{at}.{n}.weight": s for n, s in matrices.items()} | {
            f"{at}.{n}.bias": (matrices[n][0],) for n in biased
        }
        shapes |= {f"{at}.{n}_norm.weight": (width,) for n in ("attn", "mlp")}
        shapes[f"{at}.mlp.down_proj.weight"] = (width, hidden)
        if spiking:
            scaled = {n: (rows, cols // 128, 1) for n, (rows, cols) in matrices.items()} | {
                "mlp.down_proj": (width, 1, 1)
            }
            shapes |= {f"{at}.{n}.weight_quantizer.scales": s for n, s in scaled.items()}
    found = seeded_tensors(shapes, seed)
    return {n: 0.02 * t.abs() + 0.004 if n.endswith("scales") else t for n, t in found.items()}


@pytest.fixture
def opened(tmp_path: Path, tiny_model: Path) -> Any:
    """A case as a folder, read; with its config changed, and as much memory as is said."""

    def call(name: str, room: int | None = None, **changed: Any) -> LoadedModel:
        save_file(tensors_of(name), tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(COMMON | CASES[name][0] | changed))
        tokenizer = json.loads((tiny_model / "tokenizer.json").read_bytes())
        keep = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__)[:31]
        tokenizer["model"] |= {"vocab": {token: i for i, token in enumerate(keep)}, "merges": []}
        (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer | {"added_tokens": [], "post_processor": None}))
        return load_model(tmp_path, room=room)

    return call


@pytest.mark.parametrize("room", [None, 0], ids=["in memory", "from disk"])
@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_released_code(opened: Any, name: str, room: int | None) -> None:
    loaded = opened(name, room)
    assert (loaded.weight_storage == "disk") == (room == 0) and loaded.tree.spikes == (name != "plain")
    model, tokens = loaded.forward, torch.from_numpy(RECORDED[f"{name}.tokens"])[None]
    with torch.no_grad():
        whole, _ = model(tokens, model.initial_state())
        state, steps = model.initial_state(), []
        for piece in tokens.split([1, 1, 7, 1, 10], 1):
            logits, state = model(piece, state)
            steps.append(logits)
    np.testing.assert_allclose(whole[0], RECORDED[f"{name}.logits"], atol=1e-5)
    np.testing.assert_allclose(torch.cat(steps, 1)[0], RECORDED[f"{name}.logits"], atol=1e-5)


def test_spikes_by_hand() -> None:
    """Mean magnitude 3 makes the threshold 1; half a spike goes to the even number, and no number is too large."""
    x = torch.tensor([[0.5, -1.5, 2.5, 7.5], [0.0, 0.0, 0.0, 0.0], [600.0, 0.0, 0.0, 0.0]])
    assert spikes(x).tolist() == [[0, -2, 2, 8], [0, 0, 0, 0], [600, 0, 0, 0]]
    assert codes_of_8_bits(torch.tensor([[127.0, 0.5, -1.5, 126.4]])).tolist() == [[127, 0, -2, 126]]


@pytest.mark.parametrize("name", ["plain", "spiking"])
def test_which_products_take_numbers_of_spikes(opened: Any, name: str) -> None:
    """Of the spiking form all but what ends an MLP, and the head; of the plain form none."""
    loaded = opened(name)
    found = input_activity(loaded, torch.from_numpy(RECORDED[f"{name}.tokens"]))
    counted = {path for path, seen in found.items() if seen.counts}
    spiking = {path for path in found if not path.endswith(("down_proj", "lm_head"))}
    assert counted == (spiking if name == "spiking" else set())
    assert not any(seen.spikes for seen in found.values())
    assert all(0.7 < found[path].nonzero < 1 for path in counted)


def test_gradients_pass_rounding() -> None:
    x = torch.tensor([[0.4, -1.6, 2.7, 4.0]], requires_grad=True)
    (spikes(x) * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[1, 2, 3, 4]]


def test_states(opened: Any) -> None:
    """Caches of the layers with attention, a matrix per group of heads of the others."""
    found = {s.name: s.shape for s in opened("plain").forward.state_specs()}
    assert found == {
        "position": (1,), "layers.1.keys": (2, 64, 8), "layers.1.values": (2, 64, 8), "layers.3.keys": (2, 64, 8),
        "layers.3.values": (2, 64, 8), "layers.0.state": (2, 8, 8), "layers.2.state": (2, 8, 8),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"attn_layers": [1]}, r"attn_layers is \[1\], but the weights have gates in layers \[0, 2\]"),
        ({"attn_layers": "odd"}, "a list of numbers of layers is needed"),
        ({"num_attention_heads": 8}, "num_attention_heads is 8, but the weights have 4"),
        ({"use_short_conv": True}, "use_short_conv is True, which is not supported"),
    ],
)
def test_refused(opened: Any, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(SlmcError, match=said):
        opened("plain", **changed)
