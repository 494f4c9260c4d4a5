"""One function with weights of unusual size: a trained Llama, up_proj 2^-20, down_proj 2^20 times as large."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from exporters.formats.catalog import format_named
from toolchain.compress.catalog import compress, method_for
from toolchain.compress.quantized_model import QuantizedModel
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.quality.reference import Reference, stream_logits

STORIES = next(
    (p / "shared/models/stories260k-llama" for p in Path(__file__).parents if (p / "shared/models").is_dir()), None
)
TEXT = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, " * 6


@pytest.fixture(scope="module")
def stories() -> LoadedModel:
    if STORIES is None:
        pytest.skip("shared/models/stories260k-llama is not here")
    return load_model(STORIES)


def rescaled(model: LoadedModel, k: int) -> LoadedModel:
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.mul_(2.0**k if "up_proj" in name else 2.0**-k if "down_proj" in name else 1.0)
    return dataclasses.replace(model, module=module)


def drop(model: LoadedModel, name: str, method: str) -> float:
    def config(kind: str) -> LayerConfig:
        fmt = format_named(name) if kind == "linear" else format_named("int8")
        return LayerConfig(fmt.name, method_for(method, fmt, linear=kind == "linear"))

    recipe: Recipe = {layer.path: config(layer.kind) for layer in model.tree.layers if not layer.table}
    quantized = QuantizedModel(model, lambda path, chosen: compress(model.weight(path), chosen, None))
    ids = torch.tensor(model.tokenizer.encode(TEXT).ids)
    return Reference(model.forward, ids).score(stream_logits(quantized.apply(recipe), ids)).relative_drop


@pytest.mark.parametrize("name", ["int8", "int4-g64", "2:4/int4-g64", "1:8/int8+6:8/fp4-g16", "fp16"])
def test_the_drop_does_not_know_how_large_the_weights_are(stories: LoadedModel, name: str) -> None:
    usual, unusual = (drop(rescaled(stories, k), name, "range") for k in (0, -20))
    assert unusual == pytest.approx(usual, abs=5e-4)
