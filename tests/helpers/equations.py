"""The equations of operators whose gradients are written by hand, as plain loops over time in torch."""

import torch
from torch import Tensor

from exporters.ops.recurrences import spike


def lif_reference(
    current: Tensor, membrane: Tensor, tau: float, threshold: float, reset: float
) -> tuple[Tensor, Tensor]:
    """The equation of `lif` as a plain torch loop over time."""
    spikes, v = [], membrane
    for t in range(current.shape[1]):
        u = v + (current[:, t] - (v - reset)) / tau
        s = spike(u - threshold)
        v = s * reset + (1 - s) * u
        spikes.append(s)
    return torch.stack(spikes, 1) if spikes else torch.empty_like(current), v


def wkv_reference(
    decay: Tensor, first: Tensor, key: Tensor, value: Tensor, numerator: Tensor, denominator: Tensor, exponent: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The recurrence of `wkv` as a plain torch loop over time."""
    a, b, m, outs = numerator, denominator, exponent, []
    for t in range(key.shape[1]):
        k, v = key[:, t], value[:, t]
        top = torch.maximum(m, first + k)
        past, now = torch.exp(m - top), torch.exp(first + k - top)
        outs.append((past * a + now * v) / (past * b + now))
        top = torch.maximum(m + decay, k)
        past, now = torch.exp(m + decay - top), torch.exp(k - top)
        a, b, m = past * a + now * v, past * b + now, top
    return torch.stack(outs, 1) if outs else torch.empty_like(key), a, b, m


def integrate_fire_reference(
    current: Tensor, threshold: Tensor, amplitude: Tensor, leak: float, ternary: float, soft: float
) -> Tensor:
    """The equation of `integrate_fire` as a plain torch loop over the steps."""
    out, v = [], torch.zeros_like(current[0])
    for x, theta, a in zip(current, threshold, amplitude, strict=True):
        u = leak * v + x
        code = spike(u - theta)
        if ternary:
            code = code - spike(-theta - u)
        out.append(a * code)
        fires = code.detach().abs()
        v = u - theta * code.detach() if soft else u * (1 - fires)
    return torch.stack(out)
