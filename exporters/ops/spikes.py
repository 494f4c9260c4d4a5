"""Integrate-and-fire neurons that turn real values into spikes over several spike steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from exporters.ops.outputs import outputs_like
from exporters.ops.recurrences import SURROGATE_ALPHA, call_native

LEVELS = {2: "binary, {0, 1}", 3: "ternary, {-1, 0, 1}"}
"""Values that one spike may have, by their number."""


@torch.library.custom_op("slmc::integrate_fire", mutates_args=())
def integrate_fire(
    current: Tensor, threshold: Tensor, amplitude: Tensor, leak: float, ternary: float, soft: float
) -> Tensor:
    """Spikes of leaky integrate-and-fire neurons over S steps, from membranes at rest.

        u[s] = leak * v[s-1] + current[s],    v[-1] = 0
        z[s] = [u[s] >= threshold[s]],    with ternary less [u[s] <= -threshold[s]]
        v[s] = u[s] where z[s] = 0; elsewhere 0 (hard reset), or with soft u[s] - threshold[s] z[s]
        y[s] = amplitude[s] z[s]

    leak 1 and a soft reset are SpikingBERT's neurons (arXiv 2308.10873), leak 0.25 and ternary spikes after SpikeLM's
    (arXiv 2406.03287, section 4). Differentiated with the ATan surrogate; resets are constants to it.

    Args:
        current: [S, rows, channels], float32.
        threshold, amplitude: of every step, > 0, [S].
        leak: what a membrane keeps from step to step, 0 to 1; 1 keeps all.
        ternary, soft: 1 or 0.

    Returns:
        y, [S, rows, channels].
    """
    current, steps, count = current.contiguous(), len(current), current[0].numel()
    spikes = torch.empty_like(current)
    vectors = [threshold.contiguous(), amplitude.contiguous()]
    call_native("slmc_integrate_fire", [current, *vectors, spikes], (steps, count, 0, count), leak, ternary, soft)
    return spikes


outputs_like(integrate_fire, "current")


@torch.library.custom_op("slmc::integrate_fire_backward", mutates_args=())
def _integrate_fire_backward(
    current: Tensor, threshold: Tensor, amplitude: Tensor, grad: Tensor, leak: float, ternary: float, soft: float
) -> tuple[Tensor, Tensor, Tensor]:
    inputs = [t.contiguous() for t in (current, threshold, amplitude, grad)]
    grads = torch.empty_like(inputs[0]), torch.zeros_like(inputs[1]), torch.zeros_like(inputs[2])
    sizes = len(current), current[0].numel()
    call_native("slmc_integrate_fire_backward", [*inputs, *grads], sizes, leak, ternary, soft, SURROGATE_ALPHA)
    return grads


outputs_like(_integrate_fire_backward, "current", "threshold", "amplitude")


def _context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.leak, ctx.ternary, ctx.soft = inputs
    ctx.save_for_backward(*tensors)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    grads = _integrate_fire_backward(*ctx.saved_tensors, grad, ctx.leak, ctx.ternary, ctx.soft)
    return *grads, None, None, None


integrate_fire.register_autograd(_gradient, setup_context=_context)
