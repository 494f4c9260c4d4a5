"""Which layers' input channels are the output channels of layers before them, so that their order is free."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from toolchain.model.catalog import LoadedModel
from toolchain.model.decoder import Decoder
from toolchain.model.decoder_family import DECODERS
from toolchain.model.sharing import sharing_copy


@dataclass(frozen=True)
class GroupRule:
    """Within one part of a block: input j of `consumer` depends on output j of `producers` and on entry j of `vectors`
    alone. heads: only within a head, and linearly, so that channels may be mixed too. Producers that a model does not
    have (a gate) count for nothing."""

    consumer: str
    producers: tuple[str, ...]
    vectors: tuple[str, ...] = ()
    heads: bool = False


_RWKV = (
    GroupRule("ffn.value", ("ffn.key",)),
    GroupRule("att.output", ("att.key", "att.value", "att.receptance"), ("att.time_decay", "att.time_first")),
)

_DECODER = (
    GroupRule("mlp.down_proj", ("mlp.gate_proj", "mlp.up_proj")),
    GroupRule("self_attn.o_proj", ("self_attn.v_proj",), heads=True),
)

GROUP_RULES: Mapping[str, tuple[GroupRule, ...]] = {
    "spikegpt": _RWKV,
    "rwkv": _RWKV,
    **{family.name: _DECODER for family in DECODERS},
}
"""By family. Queries and keys meet in a product of their own, so that values alone have a free order within a head."""


@dataclass(frozen=True)
class PermutationGroup:
    """A consumer whose channels may be put in any order, for nothing, within each of `groups` groups.

    Input (g * repeats + r) * width + c of the consumer is output g * width + c of the producers: heads that share their
    values are `repeats` times the same channels. producers, vectors: paths of layers, names of parameters. linear:
    whether the inputs are sums of the outputs over tokens, so that channels of a group may also be mixed.
    """

    consumer: str
    producers: tuple[str, ...]
    vectors: tuple[str, ...]
    groups: int
    repeats: int
    width: int
    linear: bool = False

    def inputs(self, orders: Tensor) -> Tensor:
        """Orders [groups, width] of the channels of a group as an order of the consumer's inputs, int64 [cols]."""
        at = torch.arange(self.groups * self.repeats).view(self.groups, self.repeats, 1) * self.width
        return (at + orders[:, None]).flatten()

    def outputs(self, orders: Tensor) -> Tensor:
        """The same as an order of the producers' outputs, int64 [groups * width]."""
        return (torch.arange(self.groups)[:, None] * self.width + orders).flatten()


def permutation_groups(model: LoadedModel) -> tuple[PermutationGroup, ...]:
    """Every permutation group of a model, in the order of its layers."""
    paths = {layer.path: layer for layer in model.tree.layers}
    found = []
    for path, layer in paths.items():
        for rule in GROUP_RULES.get(model.tree.family, ()):
            block = path.removesuffix(rule.consumer)
            if block == path or not (block == "" or block.endswith(".")):
                continue
            groups, repeats = _heads(model.module) if rule.heads else (1, 1)
            producers = tuple(block + name for name in rule.producers if block + name in paths)
            biased = (p for p in producers if getattr(model.module.get_submodule(p), "bias", None) is not None)
            vectors = [*(block + name for name in rule.vectors), *(f"{p}.bias" for p in biased)]
            width = layer.cols // (groups * repeats)
            found.append(PermutationGroup(path, producers, tuple(vectors), groups, repeats, width, rule.heads))
    return tuple(found)


def _heads(module: nn.Module) -> tuple[int, int]:
    """Heads of values, and how many heads of queries use each."""
    assert isinstance(module, Decoder)
    return module.config.groups, module.config.heads // module.config.groups


def reordered(model: LoadedModel, orders: Mapping[str, Tensor]) -> LoadedModel:
    """The same function with other orders of channels inside: consumers' inputs and their producers' outputs.

    Args:
        orders: by the consumer's path, int64 [groups, width].

    Raises:
        SlmcError: a path is no consumer, or an order is none.
    """
    known = {c.consumer: c for c in permutation_groups(model)}
    module = sharing_copy(model.module)
    for path, order in orders.items():
        group = known.get(path)
        if group is None:
            raise SlmcError(f"layer {path}: the order of its inputs is not free; free are {', '.join(known) or 'none'}")
        whole = torch.arange(group.width).expand(group.groups, -1)
        if order.shape != whole.shape or not torch.equal(order.sort(1).values, whole):
            raise SlmcError(f"layer {path}: expected orders of {group.width} channels in {group.groups} groups")
        inputs, outputs = group.inputs(order), group.outputs(order)
        _reorder(module, f"{path}.weight", inputs, 1)
        for name in (*(f"{p}.weight" for p in group.producers), *group.vectors):
            _reorder(module, name, outputs, 0)
    return dataclasses.replace(model, module=module)


def _reorder(module: nn.Module, name: str, order: Tensor, dimension: int) -> None:
    holder, _, parameter = name.rpartition(".")
    owner = module.get_submodule(holder)
    tensor = getattr(owner, parameter).detach().index_select(dimension, order)
    setattr(owner, parameter, nn.Parameter(tensor, requires_grad=False))
