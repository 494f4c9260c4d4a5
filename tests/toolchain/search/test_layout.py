"""Which layers turn input-major: mostly zero inputs, an integer format, no more bytes, and no format of the user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporters.formats.catalog import format_named
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.model.tree import Block, Layer, ModelTree
from toolchain.search.layout import LEAST_ZEROS, encoded_layer, with_layouts
from toolchain.search.store import LayerStore

LAYERS = (
    Layer("emb", "embedding", 300, 128),
    Layer("key", "linear", 512, 128),
    Layer("value", "linear", 128, 512),
    Layer("odd", "linear", 40, 512),
)
TREE = ModelTree("tiny", tuple(Block(layer.path, (layer,)) for layer in LAYERS), 0, 0)


def recipe(**formats: str) -> Recipe:
    return {layer.path: LayerConfig(formats.get(layer.path, "int4-g64"), "gptq") for layer in LAYERS}


def test_mostly_zero_inputs_turn_the_layout() -> None:
    zeros = {"key": LEAST_ZEROS - 0.01, "value": LEAST_ZEROS}
    found = with_layouts(recipe(), TREE, zeros, ())
    assert found == recipe() | {"value": LayerConfig("event/int4-g64", "gptq")}


@pytest.mark.parametrize("activations", ["fp32", "int8"])
def test_activations_stay_as_they_were_judged(activations: str) -> None:
    before = recipe() | {"value": LayerConfig("int4-g64", "gptq", activations)}
    found = with_layouts(before, TREE, {"value": 1.0}, ())
    assert found["value"] == LayerConfig("event/int4-g64", "gptq", activations)


def test_what_the_user_chose_stays() -> None:
    assert with_layouts(recipe(), TREE, {"value": 1.0}, {"value"}) == recipe()


@pytest.mark.parametrize("fmt", ["fp16", "fp32", "event/int8"])
def test_other_formats_stay(fmt: str) -> None:
    assert with_layouts(recipe(value=fmt), TREE, {"value": 1.0}, ()) == recipe(value=fmt)


def test_a_layout_that_takes_more_bytes_is_not_taken() -> None:
    """40 outputs of 4 bits are padded to 64."""
    assert with_layouts(recipe(), TREE, {"odd": 1.0}, ()) == recipe()


def test_the_codes_of_the_search_are_rearranged(tmp_path: Path) -> None:
    fmt = format_named("int4-g64")
    made: list[LayerConfig] = []

    def make(path: str, config: LayerConfig):
        made.append(config)
        return fmt.encode(np.random.default_rng(0).normal(0, 1, (128, 512)).astype(np.float32))

    layers = LayerStore(tmp_path / "layers", make)
    dense = encoded_layer(layers, "value", LayerConfig("int4-g64", "gptq"))
    event = encoded_layer(layers, "value", LayerConfig("event/int4-g64", "gptq"))
    assert made == [LayerConfig("int4-g64", "gptq")]
    assert event.format == "event/int4-g64"
    np.testing.assert_array_equal(format_named(event.format).decode(event), fmt.decode(dense))
