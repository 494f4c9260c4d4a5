"""Orders that are free: every family says the same with its inner channels in another order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from decoders import family, llama_config, opt_config
from tokenizers import Tokenizer
from torch import nn

from exporters.artifact.errors import SlmcError
from toolchain.model.catalog import LoadedModel
from toolchain.model.decoder import Decoder
from toolchain.model.permutation_groups import GROUP_RULES, PermutationGroup, permutation_groups, reordered
from toolchain.model.rwkv4 import Rwkv4, Rwkv4Family
from toolchain.model.spikegpt import SpikeGpt, SpikeGptConfig, SpikeGptFamily
from toolchain.model.tree import ModelTree

MODELS: dict[str, Callable[[], tuple[nn.Module, ModelTree]]] = {}


def model_of(name: str) -> Callable[[Callable[[], tuple[nn.Module, ModelTree]]], None]:
    return lambda make: MODELS.update({name: make})


@model_of("spikegpt")
def _() -> tuple[nn.Module, ModelTree]:
    module = SpikeGpt(SpikeGptConfig(2, 8, 20, 13))
    return module, SpikeGptFamily().tree(module)


@model_of("rwkv")
def _() -> tuple[nn.Module, ModelTree]:
    module = Rwkv4(SpikeGptConfig(2, 8, 20, 13))
    return module, Rwkv4Family().tree(module)


@model_of("llama")
def _() -> tuple[nn.Module, ModelTree]:
    config = llama_config(
        2, 8, 12, 20, heads=4, groups=2, head_size=6, context=16, qkv_bias=True, output_bias=True, mlp_bias=True
    )
    module = Decoder(config)
    return module, family("llama").tree(module)


@model_of("opt")
def _() -> tuple[nn.Module, ModelTree]:
    module = Decoder(opt_config(2, 8, 12, 20, embedding=6, heads=2, positions=16))
    return module, family("opt").tree(module)


def loaded(name: str) -> LoadedModel:
    module, tree = MODELS[name]()
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.data = 0.7 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    module.eval().requires_grad_(False)
    nowhere = Path("nowhere")
    return LoadedModel(module, tree, cast(Tokenizer, None), b"", nowhere, "tiny", "0" * 64)


def logits(model: LoadedModel) -> torch.Tensor:
    """In float64, so that a sum in another order flips no spike."""
    tokens = torch.randint(0, 13, (2, 12), generator=torch.Generator().manual_seed(6))
    state = [s.double() if s.is_floating_point() else s for s in model.forward.initial_state(2)]
    out: torch.Tensor = model.forward(tokens, state)[0]
    return out


def some_orders(model: LoadedModel) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {
        c.consumer: torch.stack([torch.randperm(c.width, generator=generator) for _ in range(c.groups)])
        for c in permutation_groups(model)
    }


def test_every_family_with_rules_is_tried() -> None:
    assert {GROUP_RULES[name] for name in MODELS} == set(GROUP_RULES.values())


@pytest.mark.parametrize("name", MODELS)
def test_the_function_stays_and_the_weights_do_not(name: str) -> None:
    model = loaded(name)
    orders = some_orders(model)
    assert len(orders) == 4  # two parts of two blocks
    turned = reordered(model, orders)
    before, after = logits(model), logits(turned)
    assert (after - before).abs().max() < 1e-10
    assert before.std() > 0.01
    for group in permutation_groups(model):
        for path in (group.consumer, *group.producers):
            assert not torch.equal(turned.weight(path), model.weight(path))
        inputs = group.inputs(orders[group.consumer])
        assert torch.equal(turned.weight(group.consumer), model.weight(group.consumer)[:, inputs])


@pytest.mark.parametrize("name", MODELS)
def test_consumers_alone_in_another_order_say_something_else(name: str) -> None:
    """So the equality above does not come from a model that does not listen."""
    model = loaded(name)
    turned = reordered(model, some_orders(model))
    broken = dataclasses.replace(turned)
    for group in permutation_groups(model):
        broken.module.get_submodule(group.producers[0]).weight = nn.Parameter(model.weight(group.producers[0]))
    assert (logits(broken) - logits(model)).abs().max() > 1e-3


def test_shared_heads_by_hand() -> None:
    """Two heads of values of width 3, each used by two heads of queries: inputs 0-2 and 3-5 are the first head's."""
    group = PermutationGroup("o", ("v",), (), groups=2, repeats=2, width=3)
    orders = torch.tensor([[2, 0, 1], [0, 2, 1]])
    assert group.inputs(orders).tolist() == [2, 0, 1, 5, 3, 4, 6, 8, 7, 9, 11, 10]
    assert group.outputs(orders).tolist() == [2, 0, 1, 3, 5, 4]


def test_what_is_not_free_is_refused() -> None:
    model = loaded("spikegpt")
    with pytest.raises(SlmcError, match=r"blocks\.0\.ffn\.key: the order of its inputs is not free; free are"):
        reordered(model, {"blocks.0.ffn.key": torch.arange(8)[None]})
    with pytest.raises(SlmcError, match="expected orders of 20 channels in 1 groups"):
        reordered(model, {"blocks.0.ffn.value": torch.zeros(1, 20, dtype=torch.int64)})
