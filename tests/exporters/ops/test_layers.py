"""Biases, and tables that share the packed tensors of a head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exporters.formats.catalog import format_named
from exporters.ops.layers import Biased, shared_look_up
from exporters.ops.modules import stored_module

WEIGHT = np.random.default_rng(1).normal(0, 1, (7, 40)).astype(np.float32)


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8", "int4-g32", "uint3-g64", "int6"])
def test_a_table_holds_the_very_packed_tensors_of_the_head(name: str) -> None:
    encoded = format_named(name).encode(WEIGHT)
    head = stored_module(encoded, "linear")
    table = shared_look_up(head, encoded)
    weight = torch.from_numpy(format_named(name).decode(encoded))
    tokens = torch.tensor([[3, 0, 6], [1, 1, 5]])
    assert torch.allclose(table(tokens), weight[tokens], atol=1e-6)
    assert torch.allclose(head(torch.eye(40)), weight.t(), atol=1e-5)
    shared = {p.data_ptr() for p in head.buffers()}
    assert {p.data_ptr() for p in table.buffers()} == shared and len(shared) > 0


@pytest.mark.parametrize("name", ["int8", "int4-g32", "uint3-g64"])
def test_a_table_reads_the_tiles_of_the_head(name: str) -> None:
    weight = np.random.default_rng(2).normal(0, 1, (37, 40)).astype(np.float32)
    encoded = format_named(name).encode(weight)
    head = stored_module(encoded, "linear")
    table = shared_look_up(head, encoded)
    assert head.tile == table.tile == 16 and stored_module(encoded, "embedding").tile == 0
    tokens = torch.tensor([[3, 0, 36], [15, 16, 5]])
    assert torch.allclose(table(tokens), torch.from_numpy(format_named(name).decode(encoded))[tokens], atol=1e-6)


def test_a_bias_is_added_to_every_row() -> None:
    linear = stored_module(format_named("fp32").encode(WEIGHT), "linear")
    bias = torch.arange(7.0)
    x = torch.ones(2, 3, 40)
    assert torch.equal(Biased(linear, bias)(x), linear(x) + bias)
