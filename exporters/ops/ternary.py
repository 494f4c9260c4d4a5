"""Products of ternary matrices with inputs of 8 bits as a torch operator (arXiv 2402.17764, 2406.02528)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from exporters.formats.base import Encoded
from exporters.formats.trits import TRITS
from exporters.ops.outputs import product_of_x

SMALLEST_INPUT = 1e-5
"""The largest input of a token counts as this much at least."""


class _Rounded(torch.autograd.Function):
    """Differentiated as if nothing was rounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        steps = 127.0 / x.abs().amax(-1, keepdim=True).clamp_min(SMALLEST_INPUT)
        return (x * steps).round().clamp(-128, 127) / steps

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


def rounded_tokens(x: Tensor) -> Tensor:
    """x [..., K] rounded to 127 steps either way of zero, one step per token; gradients pass as they are.

    s = 127 / max(|x|, 1e-5),    x -> clip(round(x s), -128, 127) / s
    """
    rounded: Tensor = _Rounded.apply(x)  # type: ignore[no-untyped-call]
    return rounded


@torch.library.custom_op("slmc::ternary_linear", mutates_args=())
def ternary_linear(x: Tensor, codes: Tensor, scale: Tensor, K: int, N: int) -> Tensor:
    """y[..., n] = sum_k rounded_tokens(x)[..., k] w[n, k] with w from packed tensors (exporters.formats.trits)."""
    packed = {"codes": codes.numpy(), "scale": scale.numpy()}
    weight = torch.from_numpy(TRITS.decode(Encoded(TRITS.name, (N, K), packed)))
    return functional.linear(rounded_tokens(x), weight.to(x.dtype))


product_of_x(ternary_linear)
