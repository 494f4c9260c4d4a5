"""Event-driven products in torch: the operator over input-major planes, and the module that holds them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.formats.base import Array, Encoded
from exporters.formats.event import EventFormat
from exporters.formats.integer import IntegerFormat


@torch.library.custom_op("slmc::event_linear", mutates_args=())
def event_linear(
    x: Tensor, codes: Tensor, scales: Tensor, high: Tensor | None, zeros: Tensor | None, K: int, N: int, bits: int,
    group: int,
) -> Tensor:  # fmt: skip
    """y[..., n] = sum_k x[..., k] w[n, k] with w from input-major planes (see exporters.formats.event); x [..., K]."""
    planes: dict[str, Array] = {"codes": codes.numpy(), "scales": scales.numpy()}
    if high is not None:
        planes["high"] = high.numpy()
    if zeros is not None:
        planes["zeros"] = zeros.numpy()
    fmt = EventFormat(IntegerFormat(bits, group, zeros is None))
    weight = torch.from_numpy(fmt.decode(Encoded(fmt.name, (N, K), planes)))
    return functional.linear(x, weight.to(x.dtype))


@event_linear.register_fake
def _(
    x: Tensor, codes: Tensor, scales: Tensor, high: Tensor | None, zeros: Tensor | None, K: int, N: int, bits: int,
    group: int,
) -> Tensor:  # fmt: skip
    return x.new_empty(*x.shape[:-1], N)


class EventLinear(nn.Module):
    """y = x W^T with W from input-major planes; inputs that are zero cost nothing in the native kernel."""

    codes: Tensor
    scales: Tensor
    high: Tensor | None
    zeros: Tensor | None

    def __init__(self, encoded: Encoded, fmt: EventFormat) -> None:
        super().__init__()
        self.N, self.K = encoded.shape
        self.bits, self.group = fmt.bits, fmt.dense.group_size(self.K)
        for name in ("codes", "scales", "high", "zeros"):
            plane = encoded.planes.get(name)
            self.register_buffer(name, None if plane is None else torch.from_numpy(plane.copy()))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = event_linear(
            x, self.codes, self.scales, self.high, self.zeros, self.K, self.N, self.bits, self.group
        )
        return y
