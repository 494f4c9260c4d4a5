"""Rotations: every family says the same in float64 with its stream and its value heads turned."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from decoders import family, llama_config, opt_config
from tokenizers import Tokenizer
from torch import Tensor, nn

from toolchain.model.catalog import LoadedModel
from toolchain.model.decoder import Decoder
from toolchain.model.permutation_groups import permutation_groups
from toolchain.model.spikegpt import SpikeGpt, SpikeGptConfig, SpikeGptFamily
from toolchain.model.stream import residual_stream
from toolchain.model.tree import ModelTree
from toolchain.transform.rotation import HeadRotation, StreamRotation, orthogonal, rotated
from toolchain.transform.transformation import possible_rotations

BIASES = {"qkv_bias": True, "output_bias": True, "mlp_bias": True}


def llama(**changed: Any) -> tuple[nn.Module, ModelTree]:
    sizes = {"heads": 4, "groups": 2, "head_size": 6, "context": 16}
    module = Decoder(dataclasses.replace(llama_config(2, 8, 12, 20, **sizes), **changed))
    return module, family("llama").tree(module)


def opt(**changed: Any) -> tuple[nn.Module, ModelTree]:
    module = Decoder(opt_config(2, 8, 12, 20, heads=2, positions=16, **changed))
    return module, family("opt").tree(module)


MODELS = {
    "untied": llama(),
    "biases": llama(**BIASES),
    "tied": llama(tied=True),
    "parallel": llama(parallel=True, shared_norm=True, **BIASES),
    "scaled": llama(embedding_scale=3.0, residual_scale=0.5, logit_divisor=2.0, tied=True),
    "opt": opt(embedding=8, tied=True),
    "projected": llama(embedding_size=6, tied=True),
}
"""RMSNorm and LayerNorm, one norm for two parts, projections between the stream and a narrower table."""

ONE_BASIS = {
    "after": opt(embedding=8, placement="after", last_norm=False),
    "output": llama(placement="output"),
    "both": llama(placement="both"),
    "no biases": llama(norm="layer"),
    "no bias of a projection": opt(embedding=6),
}
"""Something else looks at the stream, or readers cannot take over what a norm adds."""


def loaded(module: nn.Module, tree: ModelTree) -> LoadedModel:
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.data = 0.7 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    for layer in tree.layers:
        if layer.table:
            module.get_submodule(layer.table).weight = module.get_parameter(f"{layer.path}.weight")
    module.eval().requires_grad_(False)
    return LoadedModel(module, tree, cast(Tokenizer, None), b"", Path("nowhere"), "tiny", "0" * 64)


def logits(model: LoadedModel) -> Tensor:
    tokens = torch.randint(0, 13, (2, 12), generator=torch.Generator().manual_seed(6))
    state = [s.double() if s.is_floating_point() else s for s in model.forward.initial_state(2)]
    return model.forward(tokens, state)[0]


def everything(model: LoadedModel) -> tuple[StreamRotation, tuple[HeadRotation, ...]]:
    generator = torch.Generator().manual_seed(7)
    stream = residual_stream(model)
    assert stream is not None
    return StreamRotation(stream, orthogonal(stream.width, generator, stream.kind)), possible_rotations(model, 7).heads


@pytest.mark.parametrize("name", MODELS)
def test_the_function_stays_and_every_matrix_changes(name: str) -> None:
    model = loaded(*MODELS[name])
    stream, heads = everything(model)
    turned = rotated(model, stream, heads)
    before, after = logits(model), logits(turned)
    assert (after - before).abs().max() < 1e-10
    assert before.std() > 0.01
    turning = set(stream.stream.paths) | {p for h in heads for p in (h.group.consumer, *h.group.producers)}
    for layer in (x for x in model.tree.layers if x.path in turning):
        assert not torch.allclose(turned.weight(layer.path), model.weight(layer.path), atol=1e-3)
    gains = [p for n, p in turned.module.named_parameters() if n.endswith("norm.weight") and p.ndim == 1]
    assert gains and all(bool((gain == 1).all()) for gain in gains)


def test_a_tied_head_stays_tied_and_gets_one_product() -> None:
    model = loaded(*MODELS["tied"])
    turned = rotated(model, *everything(model))
    assert turned.module.get_parameter("lm_head.weight") is turned.module.get_parameter("embed_tokens.weight")
    (added,) = (layer for layer in turned.tree.layers if layer.added)
    assert (added.path, added.rows, added.cols) == ("norm.product", 8, 8)
    assert turned.tree.bytes_fp32 == model.tree.bytes_fp32
    assert turned.tree.params == model.tree.params
    stream, _ = everything(model)
    gain = model.module.get_parameter("norm.weight")
    assert torch.allclose(turned.weight("norm.product"), stream.matrix.T @ torch.diag(gain) @ stream.matrix)


def test_only_the_producer_turned_says_something_else() -> None:
    """So the equality above does not come from a model that does not listen."""
    model = loaded(*MODELS["untied"])
    turned = rotated(model, *everything(model))
    path = "layers.0.self_attn.v_proj"
    turned.module.get_submodule(path).weight = nn.Parameter(model.weight(path), requires_grad=False)
    assert (logits(turned) - logits(model)).abs().max() > 1e-3


def test_the_original_keeps_its_weights() -> None:
    model = loaded(*MODELS["untied"])
    before = {n: p.clone() for n, p in model.module.named_parameters()}
    rotated(model, *everything(model))
    assert all(torch.equal(p, before[n]) for n, p in model.module.named_parameters())


@pytest.mark.parametrize("width", [1, 2, 7])
def test_matrices_are_orthogonal_and_those_of_a_layer_norm_keep_the_mean(width: int) -> None:
    generator = torch.Generator().manual_seed(3)
    for q in (orthogonal(width, generator), orthogonal(width, generator, "layer")):
        assert torch.allclose(q @ q.T, torch.eye(width).double(), atol=1e-12)
    ones = torch.ones(width, dtype=torch.float64)
    assert torch.allclose(q @ ones, ones, atol=1e-12)
    x = torch.randn(5, width, dtype=torch.float64, generator=generator)
    normed = torch.nn.functional.layer_norm(x @ q, (width,))
    assert torch.allclose(normed, torch.nn.functional.layer_norm(x, (width,)) @ q, atol=1e-9)


def test_head_matrices_by_hand() -> None:
    """Two groups of width 1, used by two heads of queries each; a rotation of one channel is a sign."""
    model = loaded(*MODELS["untied"])
    group = dataclasses.replace(permutation_groups(model)[1], groups=2, repeats=2, width=1)
    head = HeadRotation(group, torch.tensor([[[1.0]], [[-1.0]]]))
    assert head.inputs.diagonal().tolist() == [1, 1, -1, -1]
    assert head.outputs.diagonal().tolist() == [1, -1]


@pytest.mark.parametrize("name", ONE_BASIS)
def test_streams_that_have_one_basis(name: str) -> None:
    model = loaded(*ONE_BASIS[name])
    assert residual_stream(model) is None
    heads = possible_rotations(model, 7).heads
    assert len(heads) == 2
    assert (logits(rotated(model, None, heads)) - logits(model)).abs().max() < 1e-10


def test_spikes_have_one_basis() -> None:
    module = SpikeGpt(SpikeGptConfig(2, 8, 20, 13))
    rotations = possible_rotations(loaded(module, SpikeGptFamily().tree(module)), 7)
    assert rotations.stream is None and rotations.heads == ()
