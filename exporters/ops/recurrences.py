"""The recurrences LIF and WKV as torch operators: a native body, its gradient, and a torch reference beside it."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from exporters.artifact.native_library import library
from exporters.ops.outputs import outputs_like

SURROGATE_ALPHA = 2.0
"""Slope of the ATan surrogate with which spikes are differentiated (SpikingJelly's default, SpikeGPT's choice)."""

_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}
_SCALAR = {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double}


def call_native(name: str, arrays: list[Tensor | None], sizes: tuple[int, ...], *scalars: float) -> None:
    """Call a native function over contiguous arrays of one floating type."""
    dtype = next(a.dtype for a in arrays if a is not None)
    function = getattr(library(), f"{name}_{_SUFFIX[dtype]}")
    pointers = [ctypes.c_void_p(a.data_ptr() if a is not None else None) for a in arrays]
    function(*pointers, *map(ctypes.c_int64, sizes), *map(_SCALAR[dtype], scalars))


def _sizes(x: Tensor) -> tuple[int, int, int]:
    batch, time, channels = x.shape
    return batch, time, channels


# --- leaky integrate-and-fire ------------------------------------------------------------------------------------


@torch.library.custom_op("slmc::lif", mutates_args=())
def lif(current: Tensor, membrane: Tensor, tau: float, threshold: float, reset: float) -> tuple[Tensor, Tensor]:
    """Spikes of leaky integrate-and-fire neurons with a hard reset.

        u[t] = v[t-1] + (current[t] - (v[t-1] - reset)) / tau
        s[t] = [u[t] >= threshold]
        v[t] = reset if s[t] else u[t]

    Args:
        current: [batch, time, channel], float32 or float64.
        membrane: v before the first step, [batch, channel].

    Returns:
        spikes in {0, 1}, [batch, time, channel], and v after the last step, [batch, channel].
    """
    current, membrane = current.contiguous(), membrane.contiguous()
    spikes, after = torch.empty_like(current), torch.empty_like(membrane)
    call_native("slmc_lif_forward", [current, membrane, spikes, after, None], _sizes(current), tau, threshold, reset)
    return spikes, after


outputs_like(lif, "current", "membrane")


@torch.library.custom_op("slmc::lif_backward", mutates_args=())
def _lif_backward(
    current: Tensor,
    membrane: Tensor,
    grad_spikes: Tensor,
    grad_after: Tensor,
    tau: float,
    threshold: float,
    reset: float,
) -> tuple[Tensor, Tensor]:
    spikes, after, before_reset = torch.empty_like(current), torch.empty_like(membrane), torch.empty_like(current)
    sizes = _sizes(current)
    call_native("slmc_lif_forward", [current, membrane, spikes, after, before_reset], sizes, tau, threshold, reset)
    carried, grad_current = grad_after.contiguous().clone(), torch.empty_like(current)
    call_native(
        "slmc_lif_backward",
        [before_reset, grad_spikes.contiguous(), carried, grad_current],
        sizes, tau, threshold, reset, SURROGATE_ALPHA,
    )  # fmt: skip
    return grad_current, carried


outputs_like(_lif_backward, "current", "membrane")


def _lif_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    current, membrane, ctx.tau, ctx.threshold, ctx.reset = inputs
    ctx.save_for_backward(current.contiguous(), membrane.contiguous())


def _lif_gradient(ctx: Any, grad_spikes: Tensor, grad_after: Tensor) -> tuple[Any, ...]:
    current, membrane = ctx.saved_tensors
    grads = _lif_backward(current, membrane, grad_spikes, grad_after, ctx.tau, ctx.threshold, ctx.reset)
    return *grads, None, None, None


lif.register_autograd(_lif_gradient, setup_context=_lif_context)


class _Spike(torch.autograd.Function):
    """Heaviside step with the ATan surrogate gradient: alpha / 2 / (1 + (pi/2 alpha x)^2)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        slope: Tensor = SURROGATE_ALPHA / 2 / (1 + (torch.pi / 2 * SURROGATE_ALPHA * x) ** 2)
        return grads[0] * slope


def spike(x: Tensor) -> Tensor:
    """1 where x >= 0, else 0; differentiated with the ATan surrogate."""
    result: Tensor = _Spike.apply(x)  # type: ignore[no-untyped-call]
    return result


# --- weighted key-value average ----------------------------------------------------------------------------------


@torch.library.custom_op("slmc::wkv", mutates_args=())
def wkv(
    decay: Tensor, first: Tensor, key: Tensor, value: Tensor, numerator: Tensor, denominator: Tensor, exponent: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The weighted key-value average of RWKV-4, with a running maximum so that nothing overflows.

        y[t] = (sum_{s<t} e^{(t-1-s) w + k[s]} v[s] + e^{u + k[t]} v[t]) / (the same sum without v)

    Args:
        decay: w < 0, [channel].
        first: u, the bonus of the present token, [channel].
        key, value: k and v, [batch, time, channel].
        numerator, denominator, exponent: the sums before the first step, scaled by e^exponent, each [batch, channel].

    Returns:
        y, [batch, time, channel], and the three states after the last step.
    """
    decay, first, key, value = decay.contiguous(), first.contiguous(), key.contiguous(), value.contiguous()
    states = [numerator.contiguous(), denominator.contiguous(), exponent.contiguous()]
    out, after = torch.empty_like(key), [torch.empty_like(s) for s in states]
    call_native("slmc_wkv_forward", [decay, first, key, value, *states, out, *after], _sizes(key))
    return out, after[0], after[1], after[2]


outputs_like(wkv, "key", "numerator", "denominator", "exponent")


@torch.library.custom_op("slmc::wkv_backward", mutates_args=())
def _wkv_backward(
    decay: Tensor,
    first: Tensor,
    key: Tensor,
    value: Tensor,
    numerator: Tensor,
    denominator: Tensor,
    exponent: Tensor,
    grad: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_decay, grad_first = torch.zeros_like(decay), torch.zeros_like(first)
    grad_key, grad_value = torch.empty_like(key), torch.empty_like(value)
    _, time, channels = _sizes(key)
    arrays: list[Tensor | None] = [
        decay, first, key, value, numerator, denominator, exponent, grad.contiguous(),
        grad_decay, grad_first, grad_key, grad_value,
        key.new_empty(3 * time * channels), key.new_empty(5 * channels),
    ]  # fmt: skip
    call_native("slmc_wkv_backward", arrays, _sizes(key))
    return grad_decay, grad_first, grad_key, grad_value


outputs_like(_wkv_backward, "decay", "first", "key", "value")


def _wkv_context(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
    ctx.save_for_backward(*(x.contiguous() for x in inputs))


def _wkv_gradient(ctx: Any, grad: Tensor, *_states: Tensor) -> tuple[Any, ...]:
    # The states are carried between windows as constants: no gradient flows through them.
    return *_wkv_backward(*ctx.saved_tensors, grad), None, None, None


wkv.register_autograd(_wkv_gradient, setup_context=_wkv_context)
