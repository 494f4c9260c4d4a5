"""Modules that hold stored weights: they compute with what the format decodes, and hold not a byte more."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Encoded, bytes_for
from exporters.formats.catalog import FIXED, SEARCHED, format_named
from exporters.ops.modules import stored_module
from exporters.ops.translate import translation_table

FORMATS = {f.name: f for f in (*FIXED, *SEARCHED)}
N, K = 7, 70


def random_encoded(name: str) -> Encoded:
    weight = np.random.default_rng(len(name)).normal(0, 1, (N, K)).astype(np.float32)
    return FORMATS[name].encode(weight)


@pytest.mark.parametrize("name", [n for n in FORMATS if n != "sign"])
def test_linear(name):
    encoded = random_encoded(name)
    x = torch.randn(1, 3, K, generator=torch.Generator().manual_seed(0))
    expected = functional.linear(x, torch.from_numpy(FORMATS[name].decode(encoded)))
    torch.testing.assert_close(stored_module(encoded, "linear")(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_embedding(name):
    encoded, tokens = random_encoded(name), torch.tensor([[6, 0, 3]])
    rows = torch.from_numpy(FORMATS[name].decode(encoded))[tokens]
    found = stored_module(encoded, "embedding")(tokens)
    assert found.dtype == torch.float32 and torch.equal(found, rows)


@pytest.mark.parametrize(
    ("name", "kind"), [(n, k) for n in FORMATS for k in ("linear", "embedding") if (n, k) != ("sign", "linear")]
)
def test_buffers_hold_what_the_size_law_says(name, kind):
    module = stored_module(random_encoded(name), kind)
    assert not list(module.parameters())
    assert sum(b.nbytes for b in module.buffers()) == bytes_for(FORMATS[name], N, K)


@pytest.mark.parametrize(
    ("name", "rows", "tile"),
    [("int4-g64", 40, 16), ("int4-g64", 15, 0), ("int3-g16", 40, 0), ("2:4/int4-g64", 40, 16),
     ("2:4/int4-g64", 15, 1), ("4:8x16/int4", 40, 16), ("2:4/int4-g32", 40, 16), ("fp4-g16", 40, 16)],
)  # fmt: skip
def test_packed_tensors_lie_in_tiles_where_a_kernel_gains(name, rows, tile):
    fmt = format_named(name)
    weight = np.random.default_rng(0).normal(0, 1, (rows, K)).astype(np.float32)
    encoded = fmt.encode(weight)
    module = stored_module(encoded, "linear")
    assert module.tile == tile
    assert torch.equal(module.codes, torch.from_numpy(encoded.packed["codes"])) == (tile < 16)
    x = torch.randn(1, 3, K, generator=torch.Generator().manual_seed(0))
    expected = functional.linear(x, torch.from_numpy(fmt.decode(encoded)))
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)


def test_sign_cannot_hold_a_linear_layer():
    with pytest.raises(SlmcError, match="format sign cannot hold a linear layer; sign is for binarised embeddings"):
        stored_module(random_encoded("sign"), "linear")


def test_a_kind_that_is_none_is_refused():
    with pytest.raises(SlmcError, match="cannot hold a convolution layer"):
        stored_module(random_encoded("int8"), "convolution")


def test_an_unknown_format_is_refused():
    with pytest.raises(SlmcError, match="unknown format 'int7'"):
        stored_module(Encoded("int7", (N, K), {}), "linear")


def test_a_module_owns_its_packed_tensors():
    encoded = random_encoded("int4-g64")
    module = stored_module(encoded, "linear")
    before = module(torch.ones(1, K))
    encoded.packed["codes"][:] = 0
    assert torch.equal(module(torch.ones(1, K)), before)


def integer_arguments(name: str) -> tuple[object, ...]:
    encoded, fmt = random_encoded(name), format_named(name)
    packed = [torch.from_numpy(encoded.packed[n]) if n in encoded.packed else None
              for n in ("codes", "scales", "high", "zeros")]  # fmt: skip
    return *packed, K, N, fmt.bits, fmt.group_size(K)


@pytest.mark.parametrize("name", ["int4-g64", "int3-g32", "uint3-g64", "int8"])
def test_torch_finds_the_operators_well_made(name):
    checks = ("test_schema", "test_faketensor")
    arguments = integer_arguments(name)
    for bits in (32, 8):
        x = torch.ones(1, 3, K)
        torch.library.opcheck(torch.ops.slmc.qlinear.default, (x, *arguments, bits, 0), test_utils=checks)
    tokens = torch.tensor([[1, 0]])
    torch.library.opcheck(torch.ops.slmc.qembedding.default, (tokens, *arguments, 0), test_utils=checks)


def test_torch_finds_the_plain_operators_well_made():
    checks, tokens = ("test_schema", "test_faketensor"), torch.tensor([[1, 0]])
    half, codes = torch.ones(N, K, dtype=torch.float16), torch.from_numpy(random_encoded("sign").packed["codes"])
    torch.library.opcheck(torch.ops.slmc.half_linear.default, (torch.ones(1, 3, K), half), test_utils=checks)
    torch.library.opcheck(torch.ops.slmc.sign_embedding.default, (tokens, codes, K, N), test_utils=checks)


def test_every_torch_operator_has_a_translation():
    """Gradients are not exported; everything else that torch knows of ours is."""
    ours = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if name.startswith("slmc::")}
    names = (operator._schema.name for operator in translation_table())
    translated = {name.split("::")[1] for name in names if name.startswith("slmc::")}
    assert translated == {name for name in ours if not name.endswith("_backward")}
