"""Configurations of tiny decoders, and their families by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from toolchain.model.decoder import DecoderConfig, DecoderLayer
from toolchain.model.decoder_family import DECODERS, DecoderFamily
from toolchain.model.rotary import Rotary, rotary_of


def family(name: str) -> DecoderFamily:
    """The family of a name."""
    return next(family for family in DECODERS if family.name == name)


def plain_rotary(head_size: int, theta: float = 10000.0) -> Rotary:
    """Rotary positions of all channels of a head."""
    return rotary_of({"theta": theta, "rotated_share": 1, "rope_type": "default"}, head_size, 0)


def llama_config(
    layers: int, width: int, hidden: int, vocabulary: int, *, heads: int, groups: int, head_size: int, context: int,
    theta: float = 10000.0, **more: Any,
) -> DecoderConfig:  # fmt: skip
    """As Llama."""
    return DecoderConfig(
        layers=(DecoderLayer(plain_rotary(head_size, theta)),) * layers, hidden_size=width, intermediate_size=hidden,
        vocabulary=vocabulary, embedding_size=width, heads=heads, groups=groups, head_size=head_size, context=context,
        **more,
    )  # fmt: skip


def opt_config(
    layers: int, width: int, hidden: int, vocabulary: int, *, embedding: int, heads: int, positions: int, **more: Any
) -> DecoderConfig:
    """As OPT, untied; its context is as long as it has positions."""
    config = llama_config(
        layers, width, hidden, vocabulary, heads=heads, groups=heads, head_size=width // heads, context=positions
    )
    return dataclasses.replace(
        config, layers=(DecoderLayer(),) * layers, embedding_size=embedding, positions=positions, offset=2,
        norm="layer", epsilon=1e-5, gated=False, activation="relu", qkv_bias=True, output_bias=True,
        mlp_bias=True, **more,
    )  # fmt: skip


def random_tokens(count: int, vocabulary: int) -> torch.Tensor:
    """So many tokens [1, count], always the same."""
    return torch.randint(0, vocabulary, (1, count), generator=torch.Generator().manual_seed(6))
