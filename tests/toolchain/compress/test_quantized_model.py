"""The quantized model: layers are replaced and restored, all other tensors share the original's memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from toolchain.compress.catalog import compress
from toolchain.compress.quantized_model import QuantizedModel
from toolchain.compress.recipe import LayerConfig, Recipe
from toolchain.model.catalog import LoadedModel

INT4, INT2 = LayerConfig("int4-g16", "nearest"), LayerConfig("int2", "nearest")


class Layers:
    """Compresses layers and remembers what was asked for."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.asked: list[tuple[str, LayerConfig]] = []

    def __call__(self, path: str, config: LayerConfig) -> Encoded:
        self.asked.append((path, config))
        return compress(self.model.weight(path), config, None)


@pytest.fixture
def layers(spiking: LoadedModel) -> Layers:
    return Layers(spiking)


def test_a_new_quantized_model_is_the_original_in_the_same_memory(spiking: LoadedModel, layers: Layers) -> None:
    quantized = QuantizedModel(spiking, layers)
    assert quantized.module is not spiking.module
    for name, parameter in spiking.module.named_parameters():
        assert quantized.module.get_parameter(name).data_ptr() == parameter.data_ptr()
    assert id(quantized.apply({})) == id(quantized.module)
    assert layers.asked == []


def test_buffers_are_shared_too(bigram: LoadedModel) -> None:
    quantized = QuantizedModel(bigram, Layers(bigram))
    assert quantized.module.get_buffer("unused").data_ptr() == bigram.module.get_buffer("unused").data_ptr()


def test_layers_are_exchanged_and_restored(spiking: LoadedModel, layers: Layers, token_ids: Any) -> None:
    before = {name: p.clone() for name, p in spiking.module.named_parameters()}
    quantized = QuantizedModel(spiking, layers)
    recipe: Recipe = {"head": INT4, "blocks.0.att.key": INT2}
    quantized.apply(recipe)
    for path, config in recipe.items():
        expected = torch.from_numpy(format_named(config.format).decode(layers(path, config)))
        assert torch.equal(quantized.module.get_parameter(f"{path}.weight"), expected)
        assert not torch.equal(expected, before[f"{path}.weight"])
    for name, parameter in spiking.module.named_parameters():
        shared = quantized.module.get_parameter(name).data_ptr() == parameter.data_ptr()
        assert shared is (name not in {"head.weight", "blocks.0.att.key.weight"})
        assert torch.equal(parameter, before[name])  # the original does not change

    quantized.apply({"head": INT4})
    assert quantized.module.get_parameter("blocks.0.att.key.weight").data_ptr() == (
        spiking.module.get_parameter("blocks.0.att.key.weight").data_ptr()
    )
    quantized.apply({})
    for name, parameter in spiking.module.named_parameters():
        assert quantized.module.get_parameter(name).data_ptr() == parameter.data_ptr()


def test_only_what_changes_is_asked_for(spiking: LoadedModel, layers: Layers) -> None:
    quantized = QuantizedModel(spiking, layers)
    quantized.apply({"head": INT4, "blocks.0.att.key": INT4})
    quantized.apply({"head": INT4, "blocks.0.att.key": INT2})
    quantized.apply({"blocks.0.att.key": INT2})
    quantized.apply({"blocks.0.att.key": INT2, "head": INT4})
    assert layers.asked == [
        ("head", INT4),
        ("blocks.0.att.key", INT4),
        ("blocks.0.att.key", INT2),
        ("head", INT4),
    ]


def test_another_method_in_the_same_format_is_another_layer(spiking: LoadedModel, layers: Layers) -> None:
    quantized = QuantizedModel(spiking, layers)
    quantized.apply({"head": LayerConfig("int2", "nearest")})
    nearest = quantized.module.get_parameter("head.weight").clone()
    quantized.apply({"head": LayerConfig("int2", "range")})
    assert not torch.equal(quantized.module.get_parameter("head.weight"), nearest)


def test_the_quantized_model_computes_with_its_own_weights(
    spiking: LoadedModel, layers: Layers, token_ids: Any
) -> None:
    ids = token_ids(20, 13)[None]
    original = spiking.forward(ids, spiking.forward.initial_state())[0]
    quantized = QuantizedModel(spiking, layers)
    taken = quantized.apply({"head": INT2})
    logits = taken(ids, taken.initial_state())[0]
    hidden = torch.linalg.lstsq(spiking.weight("head"), original[0].T).solution  # the head's inputs, [width, time]
    expected = (quantized.module.get_parameter("head.weight") @ hidden).T
    assert torch.allclose(logits[0], expected, atol=1e-3)
    assert not torch.allclose(logits, original, atol=1e-2)
    assert torch.equal(spiking.forward(ids, spiking.forward.initial_state())[0], original)


def test_inputs_are_rounded_where_the_choice_says_so(spiking: LoadedModel, layers: Layers, token_ids: Any) -> None:
    ids = token_ids(20, 13)[None]
    quantized, seen = QuantizedModel(spiking, layers), []
    as_it_is = quantized.apply({"head": INT4})
    plain = as_it_is(ids, as_it_is.initial_state())[0]
    taken = quantized.apply({"head": LayerConfig("int4-g16", "nearest", "int8")})
    handle = quantized.module.get_submodule("head").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = taken(ids, taken.initial_state())[0]
    handle.remove()
    steps = seen[0] / seen[0].abs().amax(-1, keepdim=True) * 127  # its width is less than one block
    assert torch.allclose(steps, steps.round(), atol=1e-3) and not torch.equal(steps, steps.sign() * 127)
    assert torch.allclose(logits, seen[0] @ quantized.module.get_parameter("head.weight").T, atol=1e-5)
    assert 1e-5 < float((logits - plain).abs().max() / plain.abs().max()) < 0.02
    for recipe in ({"head": INT4}, {"head": LayerConfig("fp16", "nearest", "int8")}, {}):
        taken = quantized.apply(recipe)  # floats have no integer products
        assert not quantized.module.get_submodule("head")._forward_pre_hooks


def test_signs_are_exact_for_a_binarised_embedding(spiking: LoadedModel, layers: Layers, token_ids: Any) -> None:
    ids = token_ids(40, 13)[None]
    original = spiking.forward(ids, spiking.forward.initial_state())[0]
    taken = QuantizedModel(spiking, layers).apply({"emb": LayerConfig("sign", "nearest")})
    assert torch.equal(taken(ids, taken.initial_state())[0], original)
