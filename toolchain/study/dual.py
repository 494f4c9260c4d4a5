"""Products of decomposed weights with inputs rounded twice: 8 bits for the outliers, four-bit floats elsewhere.

SDQ (Jeong et al., arXiv 2406.13868, section 4) rounds activations on the fly in both formats, so that each of its two
products has operands of one width. None of our operators does so: this is for evaluation only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.formats.base import Encoded
from exporters.formats.catalog import format_named
from exporters.formats.float4 import STEPS, Float4Format
from exporters.formats.scales import SMALLEST_SCALE
from exporters.ops.activations import rounded_activations
from toolchain.compress.values import round_values

VECTOR = 16
"""Neighbouring inputs that share a scale, as in VS-Quant (Dai et al., arXiv 2102.04503)."""


def float4_activations(x: Tensor) -> Tensor:
    """x [..., K] in e2m1 with a scale of max |x| / 6 per token and VECTOR inputs."""
    missing = -x.shape[-1] % VECTOR
    vectors = functional.pad(x, (0, missing)).reshape(*x.shape[:-1], -1, VECTOR)
    scales = (vectors.abs().amax(-1, keepdim=True) / float(STEPS[7])).clamp_min(SMALLEST_SCALE)
    return round_values(vectors, scales, Float4Format(VECTOR))[1].flatten(-2)[..., : x.shape[-1]]


def dual_product(encoded: Encoded) -> Callable[[Tensor], Tensor]:
    """x -> O int8(x) + I fp4(x), for a matrix [rows, cols] in a decomposed format, outliers O and inliers I."""
    summands = format_named(encoded.format).summands(encoded)
    outliers, inliers = (torch.from_numpy(fmt.decode(part)) for fmt, part in summands)

    def product(x: Tensor) -> Tensor:
        rounded = functional.linear(rounded_activations(x, VECTOR), outliers)
        return rounded + functional.linear(float4_activations(x), inliers)

    return product


@contextmanager
def dual_inputs(module: nn.Module, encoded: Mapping[str, Encoded]) -> Iterator[None]:
    """While the body runs, these layers of a model compute with inputs that are rounded twice."""

    def instead(product: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...], _output: Tensor) -> Tensor:
            y, bias = product(inputs[0]), getattr(layer, "bias", None)
            return y if bias is None else y + bias

        return hook

    hooks = [module.get_submodule(p).register_forward_hook(instead(dual_product(e))) for p, e in encoded.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
