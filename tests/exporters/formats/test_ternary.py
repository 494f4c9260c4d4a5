"""Three values by hand, and the best scale beside all scales that could be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exporters.artifact.errors import SlmcError
from exporters.formats.base import bytes_for, stored_bits
from exporters.formats.catalog import format_named
from toolchain.compress.catalog import compress
from toolchain.compress.recipe import LayerConfig


def test_by_hand() -> None:
    """Of 4, 3, -3, 1 the largest three have the mean 10/3, and (10)^2 / 3 > 11^2 / 4 > 7^2 / 2 > 4^2."""
    fmt = format_named("ternary-g16")
    encoded = fmt.encode(np.array([[4, 3, -3, 1, 0]], np.float32))
    scale = float(np.float16(10 / 3))
    assert fmt.decode(encoded).tolist() == [[scale, scale, -scale, 0, 0]]
    codes = np.unpackbits(encoded.packed["codes"], bitorder="little").reshape(-1, 2) @ [1, 2]
    assert codes.tolist() == [3, 3, 1, 2, 2] + [2] * 11  # code 0 of two bits is never used


def test_bytes_are_those_of_two_bits() -> None:
    assert stored_bits(format_named("ternary-g64")) == 2.25
    assert bytes_for(format_named("ternary-g32"), 48, 96) == bytes_for(format_named("int2-g32"), 48, 96)


def test_the_nearest_scale_is_the_best_of_all() -> None:
    weight = np.random.default_rng(0).standard_t(3, (8, 64)).astype(np.float32)
    fmt = format_named("ternary-g64")
    own = np.square(fmt.decode(fmt.encode(weight)) - weight).sum(1)
    for scale in np.linspace(0.05, 6, 400):
        tried = scale * np.sign(weight) * (np.abs(weight) > scale / 2)
        assert (own <= np.square(tried - weight).sum(1) * 1.001).all()


@pytest.mark.parametrize("name", ["ternary-g48", "ternary-g", "uternary-g64", "2:4/ternary-g64"])
def test_what_is_no_ternary_format(name: str) -> None:
    with pytest.raises(SlmcError, match="unknown format"):
        format_named(name)


def test_feedback_loses_less_and_all_codes_stay_ternary() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(500, 96, generator=random) @ torch.randn(96, 96, generator=random)
    weight, hessian = torch.randn(32, 96, generator=random), x.T @ x / 500
    fmt, lost = format_named("ternary-g32"), {}
    for method in ("nearest", "range", "gptq", "descent"):
        encoded = compress(weight, LayerConfig(fmt.name, method), hessian)
        decoded = torch.from_numpy(fmt.decode(encoded))
        scales = np.repeat(np.abs(encoded.packed["scales"].astype(np.float32)), 32, 1)
        assert set(np.unique(decoded.numpy() / scales)) <= {-1.0, 0.0, 1.0}
        error = decoded - weight
        lost[method] = float(((error @ hessian) * error).sum())
    assert lost["descent"] < lost["gptq"] < 0.9 * min(lost["nearest"], lost["range"]), lost
