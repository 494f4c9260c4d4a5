"""Refinement: Hessians of the compressed prefix, what is kept, and models that have no chain of blocks."""

from __future__ import annotations

import dataclasses
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from tests.toolchain.transform.test_rotation import llama, loaded
from toolchain.calibration.hessian import input_hessians
from toolchain.compress.catalog import compress
from toolchain.compress.quantized_model import QuantizedModel
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.model.catalog import LoadedModel
from toolchain.tuning import refine
from toolchain.tuning.refine import _loss, _Walk, refined

IDS = torch.randint(0, 20, (160,), generator=torch.Generator().manual_seed(2))
BLOCKS = ["layers.0", "layers.1"]


@pytest.fixture
def model() -> LoadedModel:
    made = loaded(*llama())
    made.module.float()
    return made


def recipe_of(model: LoadedModel) -> Recipe:
    inside, outside = LayerConfig("int2-g32", "gptq"), LayerConfig("int8", "range")
    return {layer.path: inside if "layers" in layer.path else outside for layer in model.tree.layers}


@pytest.mark.parametrize("rows", [1, 4])
def test_hessians_are_of_the_compressed_prefix(model: LoadedModel, rows: int) -> None:
    """With block 0 compressed, a calibration of the whole model says the same of block 1."""
    recipe, hessians = recipe_of(model), input_hessians(model, IDS)
    encoded = {path: compress(model.weight(path), config, hessians.get(path)) for path, config in recipe.items()}
    quantized = QuantizedModel(model, lambda path, _: encoded[path])
    first = {path: config for path, config in recipe.items() if "layers.1" not in path}
    module = cast(nn.Module, quantized.apply(first))
    expected = input_hessians(dataclasses.replace(model, module=module), IDS)
    walk = _Walk(module, BLOCKS, list(torch.split(IDS.view(-1, 16), rows)))
    assert walk.follows("layers.0")
    walk.advance("layers.0")
    paths = [layer.path for layer in model.tree.layers if layer.path.startswith("layers.1.")]
    found = walk.hessians("layers.1", paths)
    assert list(found) == paths and len(paths) == 7
    for path in paths:
        assert torch.allclose(found[path], expected[path], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found[path], hessians[path], rtol=1e-2)


def test_what_is_better_on_held_out_text_is_kept(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, hessians = recipe_of(model), input_hessians(model, IDS)
    encoded = {path: compress(model.weight(path), config, hessians.get(path)) for path, config in recipe.items()}
    losses = iter([3.0, 2.5, 3.0, 3.5])
    monkeypatch.setattr(refine, "_loss", lambda module, pieces: next(losses))
    better, worse = (refined(model, recipe, encoded, IDS) for _ in range(2))
    assert better is not None and worse is not None
    assert better.kept and better.text() == "refine: held-out loss 3.0000 before, 2.5000 after, kept"
    changed = {path for path in encoded if better.encoded[path] is not encoded[path]}
    assert changed == {path for path in encoded if path.startswith("layers.")}
    assert {path: e.format for path, e in better.encoded.items()} == {path: c.format for path, c in recipe.items()}
    assert not worse.kept and dict(worse.encoded) == encoded


def test_the_loss_by_hand(model: LoadedModel) -> None:
    pieces, expected = IDS[:48].view(3, 16), []
    for piece in pieces:
        logits = model.forward(piece[None, :-1], model.forward.initial_state(1))[0][0]
        rows: Tensor = torch.log_softmax(logits.double(), -1)
        expected.append(-sum(float(rows[t, piece[t + 1]]) for t in range(15)) / 15)
    assert _loss(model.forward, torch.split(pieces, 2)) == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_texts_that_are_too_short_and_models_without_blocks(model: LoadedModel) -> None:
    assert refined(model, {}, {}, IDS[:20]) is None
    outside = dataclasses.replace(model.tree, blocks=model.tree.blocks[-1:])
    assert refined(dataclasses.replace(model, tree=outside), {}, {}, IDS) is None
