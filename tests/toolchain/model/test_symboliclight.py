"""SymbolicLight V1 beside what its released code gave (both sizes' code, run elsewhere on seeded weights)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seeded import seeded_tensors

from exporters.artifact.errors import SlmcError
from toolchain.calibration.activity import input_activity
from toolchain.model.catalog import load_model
from toolchain.model.family import ModelOptions
from toolchain.model.symboliclight import SymbolicLight, SymbolicLightConfig, SymbolicLightFamily

RECORDED = np.load(Path(__file__).with_name("released") / "symboliclight.npz")
"""Tokens [40], logits [40, 31], and the share of ones before every matrix that reads spikes."""

COMMON = {
    "layers": 2,
    "hidden_size": 48,
    "intermediate_size": 80,
    "vocabulary": 31,
    "heads": 3,
    "bottleneck": 12,
    "window": 12,
}
CASES = {
    "194m": (SymbolicLightConfig(**COMMON, anchors=2, prior=0.1), 1),
    "874m": (SymbolicLightConfig(**COMMON, anchors=2), 2),
    "silent": (
        SymbolicLightConfig(
            layers=3, hidden_size=8, intermediate_size=24, vocabulary=31, heads=2, bottleneck=2, window=5, anchors=1,
            threshold=1.3, prior=0.1,
        ),
        3,
    ),
}  # fmt: skip
"""Sizes as they were recorded; in 'silent' up to half of the positions have no spike, and are no keys."""


def model_of(name: str) -> SymbolicLight:
    config, seed = CASES[name]
    model = SymbolicLight(config)
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    model.load_state_dict(seeded_tensors(shapes, seed))
    return model.eval().requires_grad_(False)


def as_released(model: SymbolicLight) -> dict[str, Any]:
    """A checkpoint as the authors save it: wrapped names, buffers, a config beside."""
    c = model.config
    tensors = {f"_orig_mod.{n}": t for n, t in model.state_dict().items()}
    tensors["_orig_mod.blocks.0.tcam.sparse_attn.rope.inv_freq"] = torch.ones(3)
    tensors["_orig_mod.blocks.0.tcam.sparse_attn._cached_mask"] = torch.ones(4, 4, dtype=torch.bool)
    config = {
        "vocab_size": c.vocabulary, "embed_dim": c.hidden_size, "n_layers": c.layers, "n_heads": c.heads,
        "head_dim": c.hidden_size // c.heads, "intermediate_dim": c.intermediate_size,
        "max_seq_len": 64, "dropout": 0.1,
        "sparse_attn_window": c.window, "n_global_anchors": c.anchors, "spike_threshold": c.threshold,
    }  # fmt: skip
    return {"config": config, "model": tensors, "step": 186000}


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_released_code(name: str) -> None:
    """Whole, and token by token; the window and the anchors cut keys off from token 13 (6) on."""
    model = model_of(name)
    tokens = torch.from_numpy(RECORDED[f"{name}.tokens"])[None]
    whole, _ = model(tokens, model.initial_state())
    np.testing.assert_allclose(whole[0], RECORDED[f"{name}.logits"], atol=1e-5)
    state, steps = model.initial_state(), []
    for token in tokens[0]:
        logits, state = model(token.view(1, 1), state)
        steps.append(logits)
    np.testing.assert_allclose(torch.cat(steps, 1)[0], RECORDED[f"{name}.logits"], atol=1e-5)


def checkpoint_of(name: str, tiny_model: Path, folder: Path) -> SymbolicLight:
    """Writes a case's checkpoint, with a tokenizer beside it."""
    model = model_of(name)
    torch.save(as_released(model), folder / "latest-inference.pt")
    tokenizer = json.loads((tiny_model / "tokenizer.json").read_bytes())
    keep = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__)[:31]
    tokenizer["model"] |= {"vocab": {token: i for i, token in enumerate(keep)}, "merges": []}
    tokenizer |= {"added_tokens": [], "post_processor": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return model


@pytest.mark.parametrize("name", CASES)
def test_a_released_checkpoint_is_known_by_its_tensors(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """Its file alone, with the config inside; rates of spikes are those that were recorded."""
    model = checkpoint_of(name, tiny_model, tmp_path)
    for where in (tmp_path, tmp_path / "latest-inference.pt"):
        loaded = load_model(where)
        assert loaded.tree.family == "symboliclight" and not loaded.notes
        assert isinstance(loaded.module, SymbolicLight) and loaded.module.config == model.config
    found = input_activity(loaded, torch.from_numpy(RECORDED[f"{name}.tokens"]))
    spiking = {path: activity.nonzero for path, activity in found.items() if activity.spikes}
    rates = {k.removeprefix(f"{name}.rate."): float(RECORDED[k]) for k in RECORDED if k.startswith(f"{name}.rate.")}
    assert spiking == pytest.approx(rates) and len(rates) == 2 * model.config.layers


@pytest.mark.parametrize("name", ["194m", "silent"])
def test_keys_and_values_in_8_bits(name: str) -> None:
    """Whole and token by token, in states of a byte an entry and a scale a row; few spikes flip."""
    model = model_of(name)
    exact = sum(spec.nbytes for spec in model.state_specs())
    model.kv_cache = "int8"
    c, slots = model.config, model.config.anchors + model.config.window + 1
    assert exact - sum(s.nbytes for s in model.state_specs()) == c.layers * 2 * slots * (
        3 * c.hidden_size - 4 * c.heads
    )
    tokens = torch.from_numpy(RECORDED[f"{name}.tokens"])[None, :12]
    whole, _ = model(tokens, model.initial_state())
    state, steps = model.initial_state(), []
    for token in tokens[0]:
        logits, state = model(token.view(1, 1), state)
        steps.append(logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-5, rtol=0)
    error = whole[0].numpy() - RECORDED[f"{name}.logits"][:12]
    assert 1e-5 < np.abs(error).mean() < 0.1 * np.abs(RECORDED[f"{name}.logits"]).mean()


def test_other_caches_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    checkpoint_of("194m", tiny_model, tmp_path)
    assert load_model(tmp_path, options=ModelOptions(kv_cache="int8")).kv_cache == "int8"
    with pytest.raises(SlmcError, match="--kv-cache fp16: a model of family symboliclight keeps keys and values as"):
        load_model(tmp_path, options=ModelOptions(kv_cache="fp16"))
    with pytest.raises(SlmcError, match="--context: a model of family symboliclight carries a state of fixed size"):
        load_model(tmp_path, options=ModelOptions(context=9))


def test_sizes_of_the_releases() -> None:
    """194 016 924 and 873 668 135 parameters, the model cards' numbers."""
    small = SymbolicLightConfig(
        layers=12,
        hidden_size=768,
        intermediate_size=4096,
        vocabulary=48000,
        heads=12,
        bottleneck=192,
        window=256,
        prior=0.1,
    )
    large = SymbolicLightConfig(
        layers=22, hidden_size=1536, intermediate_size=6144, vocabulary=57344, heads=24, bottleneck=384, window=512
    )
    for config, count in ((small, 194_016_924), (large, 873_668_135)):
        with torch.device("meta"):
            model = SymbolicLight(config)
        assert sum(p.numel() for p in model.parameters()) == count
        shapes = {n: tuple(t.shape) for n, t in model.state_dict().items()}
        assert SymbolicLightFamily().config(shapes, {}) == config


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"n_heads": 4}, "n_heads is 4, but the weights have 3"),
        ({"enable_sparse_attn": False}, "enable_sparse_attn is False, which is not supported"),
        ({"enable_entropy_exit": True}, "enable_entropy_exit is True"),
        ({"leak_factor": 1.5}, "leak_factor is 1.5"),
        ({"sparse_attn_window": 0}, "sparse_attn_window is 0"),
    ],
)
def test_refused(config: dict[str, Any], said: str) -> None:
    shapes = {n: tuple(t.shape) for n, t in model_of("194m").state_dict().items()}
    with pytest.raises(SlmcError, match=said):
        SymbolicLightFamily().config(shapes, config)


def test_heads_that_do_not_divide() -> None:
    shapes = {n: tuple(t.shape) for n, t in model_of("194m").state_dict().items()}
    with pytest.raises(SlmcError, match="gives 5 heads, which do not divide 48 channels"):
        SymbolicLightFamily().config(shapes | {"blocks.0.tcam.decay_raw": (5,)}, {})
