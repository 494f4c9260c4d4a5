"""NeuronSpark beside what its released code gave with the recurrence frame by frame (run elsewhere, seeded weights)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seeded import seeded_tensors

from exporters.artifact.errors import SlmcError
from toolchain.model.family import ModelOptions
from toolchain.model.neuronspark import NeuronSpark, NeuronSparkConfig, NeuronSparkFamily

RECORDED = np.load(Path(__file__).with_name("released") / "neuronspark.npz")
"""Tokens [12] and logits [12, 31]."""

CASES = {
    "k4": (
        NeuronSparkConfig(layers=2, hidden_size=16, expansion=4, intermediate_size=24, vocabulary=31, frames=4),
        {"K": 4}, 7,
    ),
    "k16": (NeuronSparkConfig(layers=1, hidden_size=12, expansion=2, intermediate_size=20, vocabulary=31), {}, 8),
}  # fmt: skip


def tensors_of(name: str) -> dict[str, torch.Tensor]:
    """A checkpoint under the family's own names; seeds depend on the released ones."""
    config, _, seed = CASES[name]
    with torch.device("meta"):
        shapes = {n: tuple(t.shape) for n, t in NeuronSpark(config).state_dict().items()}
    released = {n.replace("norm.weight", "norm.gain") if n == "norm.weight" else n: s for n, s in shapes.items()}
    del released["lm_head.weight"]
    family = NeuronSparkFamily()
    return {str(family.rename(f"model.{n}")): t for n, t in seeded_tensors(released, seed).items()}


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_the_released_code(name: str) -> None:
    config, said, _ = CASES[name]
    tensors = tensors_of(name)
    model = NeuronSparkFamily().build({n: tuple(t.shape) for n, t in tensors.items()}, said, ModelOptions())
    assert isinstance(model, NeuronSpark) and model.config == config
    model.load_state_dict(tensors | {"lm_head.weight": tensors["embed_tokens.weight"]}, assign=True)
    tokens = torch.from_numpy(RECORDED[f"{name}.tokens"])[None]
    with torch.no_grad():
        whole, _ = model(tokens, model.initial_state())
        state, steps = model.initial_state(), []
        for token in tokens[0]:
            logits, state = model(token.view(1, 1), state)
            steps.append(logits)
    np.testing.assert_allclose(whole[0], RECORDED[f"{name}.logits"], atol=5e-5)
    np.testing.assert_allclose(torch.cat(steps, 1)[0], RECORDED[f"{name}.logits"], atol=5e-5)


def test_sizes_of_the_release() -> None:
    """874 142 120 values with one table for tokens and logits, 287 616 membranes."""
    config = NeuronSparkConfig(layers=20, hidden_size=896, expansion=8, intermediate_size=2688, vocabulary=6144)
    with torch.device("meta"):
        model = NeuronSpark(config)
    tree = NeuronSparkFamily().tree(model)
    assert sum(p.numel() for n, p in model.named_parameters() if n != "lm_head.weight") == 874_142_120
    assert tree.state_values == 287_616
    assert next(x for x in tree.layers if x.path == "lm_head").table == "embed_tokens"


@pytest.mark.parametrize(
    ("config", "said"),
    [({"N": 3}, "N is 3, but the weights have 4"), ({"K": 0}, "K is 0"), ({"v_th_min": -1}, "v_th_min")],
)
def test_refused(config: dict[str, Any], said: str) -> None:
    shapes = {n: tuple(t.shape) for n, t in tensors_of("k4").items()}
    with pytest.raises(SlmcError, match=said):
        NeuronSparkFamily().build(shapes, config, ModelOptions())
