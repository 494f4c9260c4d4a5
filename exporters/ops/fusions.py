"""What stands between the products of a model as single torch operators, so that an exported step is few nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from exporters.ops.outputs import outputs_like
from exporters.ops.recurrences import lif, wkv

Parts = tuple[Tensor, ...]


def differentiate(operator: Any, equation: Callable[..., Any]) -> None:
    """Give an operator the gradient of its equation, which is evaluated once more for it."""

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.tensors = sum(isinstance(x, Tensor) for x in inputs)  # the scalars follow
        ctx.save_for_backward(*inputs[: ctx.tensors])
        ctx.scalars = inputs[ctx.tensors :]

    def gradient(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        with torch.enable_grad():
            needed = ctx.needs_input_grad[: ctx.tensors]
            inputs = [x.detach().requires_grad_(n) for x, n in zip(ctx.saved_tensors, needed, strict=True)]
            outputs = equation(*inputs, *ctx.scalars)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        wanted = [x for x in inputs if x.requires_grad]
        reached = [(out, grad) for out, grad in zip(outputs, grads, strict=True) if out.requires_grad]
        found = iter(torch.autograd.grad([y for y, _ in reached], wanted, [g for _, g in reached], allow_unused=True))
        return *(next(found) if x.requires_grad else None for x in inputs), *(None for _ in ctx.scalars)

    operator.register_autograd(gradient, setup_context=keep)


# --- layer norm, token shift, mixes ------------------------------------------------------------------------------


def _shift_mix(x: Tensor, before: Tensor, weight: Tensor, bias: Tensor, mixes: Parts, epsilon: float) -> Parts:
    n = functional.layer_norm(x, x.shape[-1:], weight, bias, epsilon)
    rows = torch.cat([before[:, None], n], 1)
    change = n - rows[:, :-1]
    return *(rows[:, :-1] + change * mix for mix in mixes), rows[:, -1].clone()


def _shift_mix2_equation(
    x: Tensor, before: Tensor, weight: Tensor, bias: Tensor, mix_0: Tensor, mix_1: Tensor, epsilon: float
) -> Parts:
    return _shift_mix(x, before, weight, bias, (mix_0, mix_1), epsilon)


def _shift_mix3_equation(
    x: Tensor, before: Tensor, weight: Tensor, bias: Tensor, mix_0: Tensor, mix_1: Tensor, mix_2: Tensor, epsilon: float
) -> Parts:
    return _shift_mix(x, before, weight, bias, (mix_0, mix_1, mix_2), epsilon)


@torch.library.custom_op("slmc::shift_mix2", mutates_args=())
def shift_mix2(
    x: Tensor, before: Tensor, weight: Tensor, bias: Tensor, mix_0: Tensor, mix_1: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """RWKV's layer norm and token shift, mixed in two ways.

        n[t] = (x[t] - mean) / sqrt(variance + epsilon) * weight + bias
        y_i[t] = n[t-1] + (n[t] - n[t-1]) * mix_i

    Args:
        x: [batch, time, channel].
        before: n before the first step, [batch, channel].
        weight, bias: of the layer norm, [channel].
        mix_0, mix_1: [1, 1, channel].

    Returns:
        y_0, y_1, each [batch, time, channel], and n after the last step, [batch, channel].
    """
    y_0, y_1, after = _shift_mix2_equation(x, before, weight, bias, mix_0, mix_1, epsilon)
    return y_0, y_1, after


outputs_like(shift_mix2, "x", "x", "before")
differentiate(shift_mix2, _shift_mix2_equation)


@torch.library.custom_op("slmc::shift_mix3", mutates_args=())
def shift_mix3(
    x: Tensor, before: Tensor, weight: Tensor, bias: Tensor, mix_0: Tensor, mix_1: Tensor, mix_2: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`shift_mix2` with a third mix: y_0, y_1, y_2, each [batch, time, channel], and n after the last step."""
    y_0, y_1, y_2, after = _shift_mix3_equation(x, before, weight, bias, mix_0, mix_1, mix_2, epsilon)
    return y_0, y_1, y_2, after


outputs_like(shift_mix3, "x", "x", "x", "before")
differentiate(shift_mix3, _shift_mix3_equation)


# --- gates -------------------------------------------------------------------------------------------------------


def _gated_wkv_equation(
    decay: Tensor, first: Tensor, key: Tensor, value: Tensor, receptance: Tensor, numerator: Tensor,
    denominator: Tensor, exponent: Tensor,
) -> Parts:  # fmt: skip
    y, *after = wkv(decay, first, key, value, numerator, denominator, exponent)
    return torch.sigmoid(receptance) * y, *after


@torch.library.custom_op("slmc::gated_wkv", mutates_args=())
def gated_wkv(
    decay: Tensor, first: Tensor, key: Tensor, value: Tensor, receptance: Tensor, numerator: Tensor,
    denominator: Tensor, exponent: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """sigmoid(receptance) * wkv(key, value), all [batch, time, channel], and wkv's three states after."""
    y, a, b, m = _gated_wkv_equation(decay, first, key, value, receptance, numerator, denominator, exponent)
    return y, a, b, m


outputs_like(gated_wkv, "key", "numerator", "denominator", "exponent")
differentiate(gated_wkv, _gated_wkv_equation)


def _squared_relu_equation(x: Tensor) -> Tensor:
    above = torch.relu(x)
    return above * above


@torch.library.custom_op("slmc::squared_relu", mutates_args=())
def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2, of any shape."""
    return _squared_relu_equation(x)


outputs_like(squared_relu, "x")
differentiate(squared_relu, _squared_relu_equation)


# --- spikes into the residual ------------------------------------------------------------------------------------


def _spike_add_equation(
    residual: Tensor, current: Tensor, membrane: Tensor, tau: float, threshold: float, reset: float
) -> Parts:
    spikes, after = lif(current, membrane, tau, threshold, reset)
    return residual + spikes, after


@torch.library.custom_op("slmc::spike_add", mutates_args=())
def spike_add(
    residual: Tensor, current: Tensor, membrane: Tensor, tau: float, threshold: float, reset: float
) -> tuple[Tensor, Tensor]:
    """residual + the spikes of `lif`, [batch, time, channel], and the membrane after, [batch, channel]."""
    total, after = _spike_add_equation(residual, current, membrane, tau, threshold, reset)
    return total, after


outputs_like(spike_add, "residual", "membrane")
differentiate(spike_add, _spike_add_equation)


def _gated_spike_add_equation(
    residual: Tensor, current: Tensor, membrane: Tensor, receptance: Tensor, tau: float, threshold: float, reset: float
) -> Parts:
    return _spike_add_equation(residual, torch.sigmoid(receptance) * current, membrane, tau, threshold, reset)


@torch.library.custom_op("slmc::gated_spike_add", mutates_args=())
def gated_spike_add(
    residual: Tensor, current: Tensor, membrane: Tensor, receptance: Tensor, tau: float, threshold: float, reset: float
) -> tuple[Tensor, Tensor]:
    """`spike_add` of neurons that sigmoid(receptance) * current drives; all [batch, time, channel]."""
    total, after = _gated_spike_add_equation(residual, current, membrane, receptance, tau, threshold, reset)
    return total, after


outputs_like(gated_spike_add, "residual", "membrane")
differentiate(gated_spike_add, _gated_spike_add_equation)
