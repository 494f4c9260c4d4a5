"""Attention over the last tokens and the first ones, through a cache of constant size, as torch operators."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from exporters.ops.attention import quantized_rows
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


def _turned_heads(q: Tensor, k: Tensor, v: Tensor, places: Tensor, width: int, theta: float) -> list[Tensor]:
    """q, k, v [B, T, H d] as heads [B, H, T, d], the first two turned."""
    split = [x.view(*x.shape[:2], -1, width) for x in (q, k, v)]
    return [x.transpose(1, 2) for x in (*(_turned(x, places, theta) for x in split[:2]), split[2])]


def _mixed(
    query: Tensor, keys: Tensor, values: Tensor, seen: Tensor, present: Tensor, position: Tensor, anchors: int
) -> Tensor:
    """y [B, T, H d] of queries [B, H, T, d] over the cache's rows and the new ones behind them, [B, H, C + T, d]."""
    time = query.shape[2]
    length, places = keys.shape[2] - time, position + torch.arange(time)
    holders = torch.cat([_held(position, length, anchors), places], 1)[:, None]
    own = places[..., None]
    near = (own - holders < length - anchors) | (holders < anchors)
    allowed = (seen[:, None] != 0) & (holders >= 0) & (holders <= own) & near
    there = present[..., None] != 0
    mask = allowed | ~there  # a query that gets 0 anyway must not divide by nothing
    y = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask[:, None])
    return torch.where(there, y.transpose(1, 2).flatten(2), 0.0)


def _kept(rows: Tensor, position: Tensor, time: int, anchors: int) -> Tensor:
    """The cache after `time` tokens, of the one before and the new rows behind it, [B, C + T] or [B, H, C + T, ...]."""
    length = rows.shape[min(rows.ndim - 1, 2)] - time
    new = _held(position + time, length, anchors)
    source = torch.where(new >= position, length + new - position, torch.arange(length))
    if rows.ndim == 2:
        return rows.gather(1, source)
    source = source[:, None].expand(-1, rows.shape[1], -1)
    return rows.gather(2, source if rows.ndim == 3 else source[..., None].expand(-1, -1, -1, rows.shape[3]))


def _equation(
    q: Tensor, k: Tensor, v: Tensor, present: Tensor, keys: Tensor, values: Tensor, seen: Tensor, position: Tensor,
    heads: int, anchors: int, theta: float,
) -> Outputs:  # fmt: skip
    time = q.shape[1]
    query, key, value = _turned_heads(q, k, v, position + torch.arange(time), keys.shape[3], theta)
    both = torch.cat([keys, key], 2), torch.cat([values, value], 2), torch.cat([seen, present], 1)
    y = _mixed(query, *both, present, position, anchors)
    return y, *(_kept(rows, position, time, anchors) for rows in both)  # type: ignore[return-value]


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


@torch.library.custom_op("slmc::anchored_attention_int8", mutates_args=())
def anchored_attention_int8(
    q: Tensor, k: Tensor, v: Tensor, present: Tensor, keys: Tensor, values: Tensor, seen: Tensor, key_scales: Tensor,
    value_scales: Tensor, position: Tensor, heads: int, anchors: int, theta: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """`anchored_attention` whose caches are int8 with one scale per token and head, float32 [B, heads, C].

    New tokens are rounded before they are attended to, so that a text read in one call and in pieces agrees.
    """
    time = q.shape[1]
    query, *new = _turned_heads(q, k, v, position + torch.arange(time), keys.shape[3], theta)
    codes, scales, decoded = [], [], []
    for cache, steps, rows in ((keys, key_scales, new[0]), (values, value_scales, new[1])):
        fresh, fresh_steps = quantized_rows(rows)
        codes.append(torch.cat([cache, fresh], 2))
        scales.append(torch.cat([steps, fresh_steps], 2))
        decoded.append(codes[-1].float() * scales[-1][..., None])
    both_seen = torch.cat([seen, present], 1)
    y = _mixed(query, decoded[0], decoded[1], both_seen, present, position, anchors)
    after = [_kept(rows, position, time, anchors) for rows in (*codes, both_seen, *scales)]
    return y.contiguous(), after[0], after[1], after[2], after[3], after[4]


outputs_like(anchored_attention_int8, "q", "keys", "values", "seen", "key_scales", "value_scales")
