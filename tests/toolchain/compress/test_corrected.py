"""Corrections found with the Hessian: less error than without them, and the least that they allow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from toolchain.compress.alps import damped
from toolchain.compress.catalog import compress, method_for, method_takes
from toolchain.compress.gptq import Gptq
from toolchain.compress.recipe import LayerConfig


def case(rows: int = 48, cols: int = 48) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(400, cols, generator=generator) @ torch.randn(cols, cols, generator=generator)
    return torch.randn(rows, cols, generator=generator), x.T @ x / 400


def error(weight: Tensor, encoded: Encoded, hessian: Tensor) -> float:
    apart = weight - torch.from_numpy(format_named(encoded.format).decode(encoded))
    return float(((apart.double() @ hessian.double()) * apart).sum())


@pytest.mark.parametrize("method", ["range", "gptq", "descent"])
@pytest.mark.parametrize("correction", ["diag", "lr4"])
def test_a_correction_lowers_the_error(method: str, correction: str) -> None:
    weight, hessian = case()
    weight = weight + torch.diag(torch.full((48,), 6.0))
    plain = error(weight, compress(weight, LayerConfig("int3-g16", method), hessian), hessian)
    found = error(weight, compress(weight, LayerConfig(f"{correction}+int3-g16", method), hessian), hessian)
    assert found < (0.7 if correction == "diag" else 0.9) * plain


def test_no_other_diagonal_is_better() -> None:
    """The error is quadratic in every entry of the diagonal: a step to either side loses."""
    weight, hessian = case()
    h = damped(hessian, Gptq.damping).float()
    encoded = compress(weight, LayerConfig("diag+int2-g16", "gptq"), hessian)
    least = error(weight, encoded, h)
    for at in (0, 7, 47):
        for step in (-0.02, 0.02):
            moved = encoded.packed["diagonal"].copy()
            moved[at] += step
            other = Encoded(encoded.format, encoded.shape, {**encoded.packed, "diagonal": moved})
            assert error(weight, other, h) > least


def test_a_diagonal_matrix_is_exact() -> None:
    weight = torch.diag(torch.tensor([0.5, -2.0, 8.0]))
    encoded = compress(weight, LayerConfig("diag+int2", "gptq"), torch.eye(3))
    assert torch.equal(torch.from_numpy(format_named("diag+int2").decode(encoded)), weight)


def test_methods() -> None:
    fmt = format_named("diag+int4-g64")
    assert method_takes("descent", fmt) and not method_takes("wanda", fmt)
    assert method_for("gptq", fmt, linear=True) == "gptq"
    assert method_for("sparsegpt", fmt, linear=True) == "gptq"
