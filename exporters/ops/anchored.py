"""Attention over the last tokens and the first ones, through a cache of constant size, as a torch operator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from exporters.ops.fusions import differentiate
from exporters.ops.outputs import outputs_like

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


def _turned(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotary positions, halves paired; x [B, T, H, d], positions [B, T]."""
    width = x.shape[-1]
    inverse = 1.0 / (theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width))
    angles = (positions[..., None].float() * inverse)[:, :, None]
    cos, sin = angles.cos(), angles.sin()
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _held(read: Tensor, length: int, anchors: int) -> Tensor:
    """Which token each slot holds after so many were read, int64 [B, C]; negative where none. read: int64 [B, 1]."""
    slots, ring = torch.arange(length), length - anchors
    last = read - 1 - torch.remainder(read - 1 - slots, ring)
    in_ring = torch.where(last >= anchors, last, -1)
    return torch.where(slots < anchors, torch.where(slots < read, slots, -1), in_ring)


def _equation(
    q: Tensor, k: Tensor, v: Tensor, present: Tensor, keys: Tensor, values: Tensor, seen: Tensor, position: Tensor,
    heads: int, anchors: int, theta: float,
) -> Outputs:  # fmt: skip
    length, width, time = keys.shape[2], keys.shape[3], q.shape[1]
    places = position + torch.arange(time)
    split = [x.view(*x.shape[:2], heads, width) for x in (q, k, v)]
    query, key = (_turned(x, places, theta).transpose(1, 2) for x in split[:2])
    all_keys, all_values = torch.cat([keys, key], 2), torch.cat([values, split[2].transpose(1, 2)], 2)
    all_seen = torch.cat([seen, present], 1)
    holders = torch.cat([_held(position, length, anchors), places], 1)[:, None]
    own = places[..., None]
    near = (own - holders < length - anchors) | (holders < anchors)
    allowed = (all_seen[:, None] != 0) & (holders >= 0) & (holders <= own) & near
    there = present[..., None] != 0
    mask = allowed | ~there  # a query that gets 0 anyway must not divide by nothing
    y = functional.scaled_dot_product_attention(query, all_keys, all_values, attn_mask=mask[:, None])
    y = torch.where(there, y.transpose(1, 2).flatten(2), 0.0)
    new = _held(position + time, length, anchors)
    source = torch.where(new >= position, length + new - position, torch.arange(length))
    rows = source[:, None, :, None].expand(-1, heads, -1, width)
    return y, all_keys.gather(2, rows), all_values.gather(2, rows), all_seen.gather(1, source)


@torch.library.custom_op("slmc::anchored_attention", mutates_args=())
def anchored_attention(
    q: Tensor, k: Tensor, v: Tensor, present: Tensor, keys: Tensor, values: Tensor, seen: Tensor, position: Tensor,
    heads: int, anchors: int, theta: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Attention of new tokens over the first `anchors` tokens and the last C - anchors, themselves among them.

        y[t, h] = sum_j softmax_j(q[t, h] k[j, h] / sqrt(d)) v[j, h],
                  j <= t, j < anchors or t - j < C - anchors, present[j];    0 where t is not present

    Queries and keys are turned by rotary positions of base theta. The cache holds token j < anchors in slot j, and the
    last ones in a ring behind them, so that its size does not grow with the text.

    Args:
        q, k, v: [B, T, heads d].
        present: 1, or 0 of tokens that are no keys and get nothing, [B, T].
        keys, values: [B, heads, C, d].
        seen: `present` of the slots' tokens, [B, C].
        position: how many tokens came before, int64 [B, 1].

    Returns:
        y [B, T, heads d]; keys, values and seen with the new tokens.
    """
    y, *after = _equation(q, k, v, present, keys, values, seen, position, heads, anchors, theta)
    return y.contiguous(), after[0], after[1], after[2]


outputs_like(anchored_attention, "q", "keys", "values", "seen")
differentiate(anchored_attention, _equation)
