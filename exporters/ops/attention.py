"""Attention over a key-value cache of bounded length as torch operators: float32 caches, and 8-bit codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from exporters.artifact.errors import SlmcError
from exporters.ops.attention_functions import SMALLEST_SCALE


def _rotated(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Rotary positions (arXiv 2104.09864), halves paired as Hugging Face stores them; x [B, T, n, d], positions [B, T].

    Pair (x[i], x[i + d/2]) is turned by the angle position * theta^(-2i/d).
    """
    width = x.shape[-1]
    inverse = 1.0 / (theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width))
    angles = (positions[..., None].float() * inverse)[:, :, None]
    cos, sin = angles.cos(), angles.sin()
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _heads(q: Tensor, k: Tensor, v: Tensor, width: int, positions: Tensor, theta: float, rotate: float) -> list[Tensor]:
    """q, k, v [B, T, n d] as heads [B, n, T, d], the first two turned."""
    split = [x.view(*x.shape[:2], -1, width) for x in (q, k, v)]
    if rotate:
        split[:2] = [_rotated(x, positions, theta) for x in split[:2]]
    return [x.transpose(1, 2) for x in split]


def _positions(position: Tensor, time: int, length: int) -> Tensor:
    """Positions [B, T] of the new tokens.

    Raises:
        SlmcError: the cache has no room for them.
    """
    positions = position + torch.arange(time)
    last = int(positions.max())
    if last >= length:
        raise SlmcError(f"{last + 1} tokens do not fit into a context of {length}; give --context {last + 1} or more")
    return positions


def _attended(q: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over the slots up to each token's own; q [B, H, T, d], caches [B, G, C, d]."""
    used = int(positions.max()) + 1
    if used == q.shape[2]:  # a text from its beginning: torch has a quicker kernel for it
        keys, values = (x[:, :, :used].repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (keys, values))
        return functional.scaled_dot_product_attention(q, keys, values, is_causal=True).transpose(1, 2).flatten(2)
    seen = torch.arange(used) <= positions[..., None]
    y = functional.scaled_dot_product_attention(
        q, keys[:, :, :used], values[:, :, :used], attn_mask=seen[:, None], enable_gqa=True
    )
    return y.transpose(1, 2).flatten(2)


def _written(cache: Tensor, new: Tensor, positions: Tensor) -> Tensor:
    """The cache [B, G, C, ...] with new [B, G, T, ...] at its positions."""
    index = positions[:, None].expand(*new.shape[:3])
    index = index[..., None].expand_as(new) if new.ndim == 4 else index
    return cache.scatter(2, index, new)


def _exact(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, position: Tensor, theta: float, rotate: float
) -> tuple[Tensor, Tensor, Tensor]:
    positions = _positions(position, q.shape[1], keys.shape[2])
    heads, k_new, v_new = _heads(q, k, v, keys.shape[3], positions, theta, rotate)
    keys, values = _written(keys, k_new, positions), _written(values, v_new, positions)
    return _attended(heads, keys, values, positions), keys, values


@torch.library.custom_op("slmc::cached_attention", mutates_args=())
def cached_attention(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, position: Tensor, heads: int, theta: float,
    rotate: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Causal attention of new tokens over themselves and all tokens before, which the caches hold.

        y[t, h] = sum_s softmax_s(q[t, h] k[s, g] / sqrt(d)) v[s, g],    s <= t,    g = h / (H / G)

    Args:
        q: [B, T, H d]; k, v: [B, T, G d] with G groups of keys that H / G heads share (arXiv 2305.13245).
        keys, values: of the tokens before, in slots 0 .. position - 1; [B, G, C, d].
        position: how many tokens came before, int64 [B, 1].
        heads: H.
        theta, rotate: with rotate 1 queries and keys are turned by rotary positions of base theta; with 0 they are not.

    Returns:
        y [B, T, H d], and the caches with the new tokens in slots position .. position + T - 1.

    Raises:
        SlmcError: more than C tokens in all.
    """
    y, keys, values = _exact(q, k, v, keys, values, position, theta, rotate)
    return y.contiguous(), keys, values


@cached_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, position: Tensor, heads: int, theta: float,
    rotate: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(q), torch.empty_like(keys), torch.empty_like(values)


def _context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, _, ctx.theta, ctx.rotate = inputs
    ctx.save_for_backward(*tensors)


def _gradient(ctx: Any, grad: Tensor, *_caches: Tensor) -> tuple[Any, ...]:
    # The caches are carried between windows as constants: no gradient flows through them.
    q, k, v, keys, values, position = ctx.saved_tensors
    with torch.enable_grad():
        fresh = [x.detach().requires_grad_() for x in (q, k, v)]
        y, _, _ = _exact(fresh[0], fresh[1], fresh[2], keys, values, position, ctx.theta, ctx.rotate)
    return *torch.autograd.grad(y, fresh, grad), None, None, None, None, None, None


cached_attention.register_autograd(_gradient, setup_context=_context)


def _quantized(x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int8 [B, G, T, d] and scales float32 [B, G, T]: x = scale * code, the largest |code| being 127."""
    scales = x.abs().amax(-1).clamp_min(SMALLEST_SCALE) / 127
    return torch.round(x / scales[..., None]).to(torch.int8), scales


@torch.library.custom_op("slmc::cached_attention_int8", mutates_args=())
def cached_attention_int8(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, key_scales: Tensor, value_scales: Tensor,
    position: Tensor, heads: int, theta: float, rotate: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """`cached_attention` whose caches are int8 [B, G, C, d] with one scale per token and group, float32 [B, G, C].

    New tokens are rounded before they are attended to, so that a text read in one call and in pieces agrees.
    """
    positions = _positions(position, q.shape[1], keys.shape[2])
    query, k_new, v_new = _heads(q, k, v, keys.shape[3], positions, theta, rotate)
    after, decoded = [], []
    used = int(positions.max()) + 1
    for cache, scales, new in ((keys, key_scales, k_new), (values, value_scales, v_new)):
        codes, fresh = _quantized(new)
        codes, fresh = _written(cache, codes, positions), _written(scales, fresh, positions)
        after.append((codes, fresh))
        decoded.append(codes[:, :, :used].float() * fresh[:, :, :used, None])
    y = _attended(query, decoded[0], decoded[1], positions).contiguous()
    return y, after[0][0], after[1][0], after[0][1], after[1][1]


@cached_attention_int8.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, key_scales: Tensor, value_scales: Tensor,
    position: Tensor, heads: int, theta: float, rotate: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    caches = (keys, values, key_scales, value_scales)
    return torch.empty_like(q), *(torch.empty_like(c) for c in caches)  # type: ignore[return-value]
