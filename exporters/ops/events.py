"""Event-driven products in torch: the operator over input-major packed tensors, and the module that holds them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from exporters.formats.base import Array, Encoded
from exporters.formats.event import EventFormat
from exporters.formats.integer import IntegerFormat
from exporters.ops.activations import rounded_activations
from exporters.ops.outputs import product_of_x


@torch.library.custom_op("slmc::event_linear", mutates_args=())
def event_linear(
    x: Tensor, codes: Tensor, scales: Tensor, high: Tensor | None, zeros: Tensor | None, K: int, N: int, bits: int,
    group: int, activation_bits: int,
) -> Tensor:  # fmt: skip
    """y[..., n] = sum_k x[..., k] w[n, k] with w from input-major tensors (see exporters.formats.event); x [..., K].

    activation_bits: 32 takes x as it is, 8 rounds it first (see exporters.ops.activations).
    """
    if activation_bits == 8:
        x = rounded_activations(x, group)
    packed: dict[str, Array] = {"codes": codes.numpy(), "scales": scales.numpy()}
    if high is not None:
        packed["high"] = high.numpy()
    if zeros is not None:
        packed["zeros"] = zeros.numpy()
    fmt = EventFormat(IntegerFormat(bits, group, zeros is None))
    weight = torch.from_numpy(fmt.decode(Encoded(fmt.name, (N, K), packed)))
    return functional.linear(x, weight.to(x.dtype))


product_of_x(event_linear)
