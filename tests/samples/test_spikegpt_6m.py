"""The shipped sample keeps what its model card says: size, vocabulary, living neurons, bits per byte."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import onnx
import pytest
from train_spikegpt import bits_per_byte, encode, firing_rates

from exporters.export import export_graph
from exporters.formats.catalog import format_named
from toolchain.compress.recipe import LayerConfig
from toolchain.delivery.deliver import stored_model
from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.text import read_text
from toolchain.quality.reference import Reference
from toolchain.search.plan import recipe_bytes

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples" / "spikegpt-6m"
WIKI = ROOT.parent / "shared" / "data" / "wikitext-2-raw" / "wiki.test.raw"


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(SAMPLE)


def test_it_is_as_large_as_the_card_says(model: LoadedModel) -> None:
    assert model.tree.params == 6_178_304
    assert model.tokenizer.get_vocab_size() == 2048
    assert (SAMPLE / "model.safetensors").stat().st_size <= 16_000_000


def test_a_step_is_few_nodes(model: LoadedModel, tmp_path: Path) -> None:
    """Two for each of six blocks; three for the embedding and its spikes, the norms at both ends, and the head."""
    recipe = {x.path: LayerConfig("int4-g64", "range") for x in model.tree.layers}
    int4 = format_named("int4-g64")
    encoded = {x.path: int4.encode(model.weight(x.path).numpy()) for x in model.tree.layers}
    module = cast(Any, stored_model(model, encoded, recipe))
    export_graph(module, module.state_specs(), tmp_path, recipe_bytes(recipe, model.tree))
    assert len(onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.node) == 2 * 6 + 3 + 2 + 1


def test_no_layer_is_dead_or_always_on(model: LoadedModel) -> None:
    text = (SHIPPED_TEXTS / "evaluation.txt").read_text(encoding="utf-8")
    rates = firing_rates(model.module, encode(model.tokenizer, text)[:3000])  # type: ignore[arg-type]
    assert len(rates) == 12
    assert all(0.02 <= rate <= 0.60 for rate in rates.values()), rates


def test_it_has_learned_english(model: LoadedModel) -> None:
    """Far below the 5.9 bits of the tokenizer's own text with every token as likely."""
    text = read_text(SHIPPED_TEXTS / "evaluation.txt", model.tokenizer).head(2000)
    nats = math.log(Reference(model.forward, text.ids).perplexity) * (len(text.ids) - 1)
    assert nats / math.log(2) / text.n_bytes < 2.2


@pytest.mark.skipif(not WIKI.is_file(), reason="wiki.test.raw is not shipped; it lies in ../shared/data for developers")
def test_bits_per_byte_on_wikitext(model: LoadedModel) -> None:
    text = WIKI.read_text(encoding="utf-8")[:150_000]
    bits = bits_per_byte(model.module, encode(model.tokenizer, text), len(text.encode()))  # type: ignore[arg-type]
    assert bits <= 2.15


def test_the_card_names_data_steps_losses_and_firing_rates() -> None:
    card = (SAMPLE / "README.md").read_text(encoding="utf-8").lower()
    for word in ("wiki.valid.raw", "war_and_peace", "steps", "bits per byte", "firing"):
        assert word in card
