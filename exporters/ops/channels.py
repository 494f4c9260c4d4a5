"""Recurrences with parameters per channel as torch operators: neurons, linear recurrences, states that are matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from exporters.ops.fusions import differentiate
from exporters.ops.outputs import outputs_like
from exporters.ops.recurrences import call_native, spike


def _at(parameter: Tensor, t: int) -> Tensor:
    """A parameter [], [channel] or [batch, time, channel] at a step."""
    return parameter if parameter.ndim < 3 else parameter[:, t]


def _each(parameter: Tensor, channels: int) -> Tensor:
    """A parameter with a value for every channel at least."""
    return (parameter if parameter.ndim else parameter.expand(channels)).contiguous()


# --- neurons -------------------------------------------------------------------------------------------------------


def plif_reference(
    current: Tensor, decay: Tensor, gain: Tensor, threshold: Tensor, drop: Tensor, membrane: Tensor, low: float,
    high: float, reset: float, soft: float, membranes: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The equation of `plif` as a plain torch loop over time."""
    out, v = [], membrane
    for t in range(current.shape[1]):
        u = (_at(decay, t) * v + _at(gain, t) * current[:, t]).clamp(low, high)
        s = spike(u - _at(threshold, t))
        v = u - _at(drop, t) * s if soft else s * reset + (1 - s) * u
        out.append(v if membranes else s)
    return torch.stack(out, 1) if out else torch.empty_like(current), v


@torch.library.custom_op("slmc::plif", mutates_args=())
def plif(
    current: Tensor, decay: Tensor, gain: Tensor, threshold: Tensor, drop: Tensor, membrane: Tensor, low: float,
    high: float, reset: float, soft: float, membranes: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Leaky integrate-and-fire neurons, each with its own leak, gain and threshold (arXiv 2007.05785: parametric LIF).

        u[t] = clip(decay v[t-1] + gain current[t], low, high)
        s[t] = [u[t] >= threshold]
        v[t] = u[t] - drop s[t] if soft, else reset where s[t] = 1 and u[t] elsewhere

    Args:
        current: [batch, time, channel], float32 or float64.
        decay, gain, threshold, drop: [] or [channel], or of every step, [batch, time, channel].
        membrane: v before the first step, [batch, channel].
        soft, membranes: 1 or 0.

    Returns:
        s, or with membranes 1 v, [batch, time, channel]; v after the last step, [batch, channel]. Spikes are
        differentiated with the ATan surrogate.
    """
    parameters = [_each(p, current.shape[2]) for p in (decay, gain, threshold, drop)]
    current, membrane = current.contiguous(), membrane.contiguous()
    y, after = torch.empty_like(current), torch.empty_like(membrane)
    each = sum(2**i for i, p in enumerate(parameters) if p.ndim == 3)
    batch, time, channels = current.shape
    arrays: list[Tensor | None] = [current, *parameters, membrane, y, after]
    call_native("slmc_plif", arrays, (batch, time, channels, each), low, high, reset, soft, membranes)
    return y, after


outputs_like(plif, "current", "membrane")
differentiate(plif, plif_reference)


# --- linear recurrence ---------------------------------------------------------------------------------------------


def linear_recurrence_reference(decay: Tensor, current: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The equation of `linear_recurrence` as a plain torch loop over time."""
    out = []
    for t in range(current.shape[1]):
        state = _at(decay, t) * state + current[:, t]
        out.append(state)
    return torch.stack(out, 1) if out else torch.empty_like(current), state


@torch.library.custom_op("slmc::linear_recurrence", mutates_args=())
def linear_recurrence(decay: Tensor, current: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """y[t] = decay y[t-1] + current[t].

    Args:
        decay: [] or [channel], or of every step, [batch, time, channel].
        current: [batch, time, channel], float32 or float64.
        state: y before the first step, [batch, channel].

    Returns:
        y, [batch, time, channel], and y after the last step, [batch, channel].
    """
    decay, current, state = _each(decay, current.shape[2]), current.contiguous(), state.contiguous()
    y, after = torch.empty_like(current), torch.empty_like(state)
    batch, time, channels = current.shape
    sizes = (batch, time, channels, int(decay.ndim == 3))
    call_native("slmc_linear_recurrence", [decay, current, state, y, after], sizes)
    return y, after


outputs_like(linear_recurrence, "current", "state")
differentiate(linear_recurrence, linear_recurrence_reference)


# --- states that are matrices --------------------------------------------------------------------------------------


def delta_rule_reference(
    query: Tensor, decay: Tensor, key: Tensor, value: Tensor, removed: Tensor, rate: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The equation of `delta_rule` as a plain torch loop over time."""
    batch, time, _ = query.shape
    states, width = state.shape[1:3]
    q = query.reshape(batch, time, states, -1, width)
    w, k, v, a, r = (x.reshape(batch, time, states, width) for x in (decay, key, value, removed, rate))
    out = []
    for t in range(time):
        gone = state @ a[:, t, :, :, None]
        state = state * w[:, t, :, None] + gone * r[:, t, :, None] + v[:, t, :, :, None] * k[:, t, :, None]
        out.append((q[:, t] @ state.mT).reshape(batch, -1))
    return torch.stack(out, 1) if out else torch.empty_like(query), state


@torch.library.custom_op("slmc::delta_rule", mutates_args=())
def delta_rule(
    query: Tensor, decay: Tensor, key: Tensor, value: Tensor, removed: Tensor, rate: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """RWKV-7's generalised delta rule (arXiv 2503.14456, section 4); gated linear attention where removed is 0.

        S[t] = S[t-1] diag(decay[t]) + (S[t-1] removed[t]) rate[t]^T + value[t] key[t]^T
        y[t] = S[t] query[t]

    Args:
        query: [batch, time, heads * width], float32 or float64; heads / states of them in a row share a state.
        decay, key, value, removed, rate: [batch, time, states * width].
        state: S before the first step, [batch, states, width, width]; rows belong to values, columns to keys.

    Returns:
        y like query, and S after the last step.
    """
    arrays = [x.contiguous() for x in (query, decay, key, value, removed, rate, state)]
    y, after = torch.empty_like(arrays[0]), torch.empty_like(arrays[6])
    batch, time, inner = query.shape
    states, width = state.shape[1:3]
    call_native("slmc_delta_rule", [*arrays, y, after], (batch, time, inner // width, states, width))
    return y, after


outputs_like(delta_rule, "query", "state")
differentiate(delta_rule, delta_rule_reference)
