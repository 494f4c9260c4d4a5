"""Every method in every searched format: what is stored decodes, and takes the bytes that the size law says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from exporters.artifact.errors import SlmcError
from exporters.formats.base import Encoded, bytes_for
from exporters.formats.catalog import SEARCHED, format_named
from exporters.formats.integer import IntegerFormat
from toolchain.compress.catalog import INTEGER_METHODS, compress, method_named
from toolchain.compress.recipe import LayerConfig

INTEGER = [f for f in SEARCHED if isinstance(f, IntegerFormat)]


def decoded(encoded: Encoded) -> Tensor:
    return torch.from_numpy(format_named(encoded.format).decode(encoded))


def layer(rows: int, cols: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows * 1000 + cols)
    x = torch.randn(500, cols, generator=generator)
    return torch.randn(rows, cols, generator=generator), x.T @ x / 500


@pytest.mark.parametrize("method", INTEGER_METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("fmt", INTEGER, ids=lambda f: f.name)
@pytest.mark.parametrize("shape", [(1, 1), (5, 32), (7, 100), (4, 200)], ids=str)
def test_round_trip(method: object, fmt: IntegerFormat, shape: tuple[int, int]) -> None:
    weight, hessian = layer(*shape)
    name = getattr(method, "name")  # noqa: B009
    encoded = compress(weight, LayerConfig(fmt.name, name), hessian)
    assert encoded.format == fmt.name
    assert encoded.shape == shape
    assert encoded.nbytes == bytes_for(fmt, *shape)
    for tensor, expected in fmt.layout_for(*shape).items():
        assert (encoded.packed[tensor].shape, encoded.packed[tensor].dtype) == (expected.shape, expected.dtype)
    values = decoded(encoded)
    assert values.shape == shape
    assert values.dtype == torch.float32
    # Every value is on the stored grid, and no more of them in a group than codes.
    size = fmt.group_size(shape[1])
    for g in range(fmt.groups(shape[1])):
        for row in values[:, g * size : (g + 1) * size]:
            assert len(row.unique()) <= fmt.levels
    steps = torch.from_numpy(encoded.packed["scales"].astype("float32")).abs().repeat_interleave(size, 1)
    codes = values / steps[:, : shape[1]]
    assert torch.allclose(codes, codes.round(), atol=1e-3)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("method", INTEGER_METHODS, ids=lambda m: m.name)
def test_more_bits_lose_less(bits: int, method: object) -> None:
    """The relative error of each width, between what its number of levels allows and what it must not exceed."""
    weight, hessian = layer(16, 128)
    values = decoded(compress(weight, LayerConfig(f"int{bits}-g64", getattr(method, "name")), hessian))  # noqa: B009
    relative = float((values - weight).square().mean().sqrt() / weight.square().mean().sqrt())
    # A step of 2 reach / 2^bits has the error step / sqrt(12); the reach of 64 normal values is about 2.4.
    assert 0.2 * 2.4 * 2 / 2**bits / 12**0.5 < relative < 1.7 * 2.4 * 2 / 2**bits / 12**0.5


def test_formats_without_a_grid_are_rounded_to_nearest() -> None:
    weight = torch.tensor([[0.1, -70000.0, 1.0, -0.0]])
    half = decoded(compress(weight, LayerConfig("fp16", "nearest"), None))
    assert half.tolist() == [pytest.approx([0.1, -70000.0, 1.0, 0.0], rel=5e-4)]
    assert torch.equal(decoded(compress(weight, LayerConfig("fp32", "nearest"), None)), weight)
    assert decoded(compress(weight, LayerConfig("sign", "nearest"), None)).tolist() == [[1.0, -1.0, 1.0, 1.0]]


def test_parameters_and_other_floats_are_taken_as_they_are() -> None:
    weight, hessian = layer(4, 64)
    expected = decoded(compress(weight, LayerConfig("int4-g64", "gptq"), hessian))
    parameter = nn.Parameter(weight.double())
    assert torch.equal(decoded(compress(parameter, LayerConfig("int4-g64", "gptq"), hessian)), expected)


def test_which_methods_need_a_hessian() -> None:
    assert {m.name for m in INTEGER_METHODS if m.needs_hessian} == {"gptq", "descent"}
    weight, _ = layer(4, 64)
    for method in INTEGER_METHODS:
        if method.needs_hessian:
            with pytest.raises(SlmcError, match="needs calibration"):
                compress(weight, LayerConfig("int4-g64", method.name), None)
        else:
            compress(weight, LayerConfig("int4-g64", method.name), None)


@pytest.mark.parametrize("name", ["", "GPTQ", "awq"])
def test_an_unknown_method_is_named_with_those_that_exist(name: str) -> None:
    with pytest.raises(SlmcError, match=rf"unknown method '{name}'; allowed are nearest, range, gptq"):
        method_named(name)
    with pytest.raises(SlmcError, match="unknown method"):
        compress(torch.ones(2, 4), LayerConfig("int4-g64", name), None)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(SlmcError, match="unknown format 'int7'"):
        compress(torch.ones(2, 4), LayerConfig("int7", "nearest"), None)
