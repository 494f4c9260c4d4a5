"""Attention over a key-value cache of bounded length as torch operators: caches of float32, float16, 8-bit codes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from exporters.artifact.errors import SlmcError
from exporters.ops.attention_functions import SMALLEST_SCALE
from exporters.ops.outputs import outputs_like

LARGEST_BLOCK = 256
"""Channels that are mixed at once at most."""


class _How(NamedTuple):
    """The attributes, in the signature's order."""

    heads: int
    window: int
    rotary: int
    theta: float
    rotate: float
    scale: float
    cap: float


Tables = tuple[Tensor | None, Tensor | None]
"""Cosines and sines of the new tokens' angles, [B, T, r / 2], or none."""


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (arXiv 2104.09864), halves paired as Hugging Face stores them.

    Of the first r channels of x [B, T, n, d], pair (x[i], x[i + r/2]) is turned by angle i of tables [B, T, r/2].
    """
    half = cos.shape[-1]
    cos, sin = cos[:, :, None], sin[:, :, None]
    first, second, still = x.tensor_split((half, 2 * half), -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, still], -1)


def _tables(positions: Tensor, width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Of angles position * theta^(-2i/width); positions [B, T]."""
    inverse = 1.0 / (theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width))
    angles = positions[..., None].float() * inverse
    return angles.cos(), angles.sin()


def _heads(q: Tensor, k: Tensor, v: Tensor, width: int, positions: Tensor, tables: Tables, how: _How) -> list[Tensor]:
    """q, k, v [B, T, n d] as heads [B, n, T, d], the first two turned."""
    split = [x.view(*x.shape[:2], -1, width) for x in (q, k, v)]
    if how.rotate:
        cos, sin = tables
        if cos is None or sin is None:
            cos, sin = _tables(positions, how.rotary or width, how.theta)
        split[:2] = [_rotated(x, cos, sin) for x in split[:2]]
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


def _attended(q: Tensor, keys: Tensor, values: Tensor, positions: Tensor, how: _How) -> Tensor:
    """softmax(scores) v over the slots that each token sees; q [B, H, T, d], caches [B, G, C, d] -> [B, T, H d]."""
    used, scale, shared = int(positions.max()) + 1, how.scale or q.shape[-1] ** -0.5, q.shape[1] // keys.shape[1]
    keys, values = keys[:, :, :used], values[:, :, :used]
    attention = functional.scaled_dot_product_attention
    if used == q.shape[2] and not how.window and not how.cap:  # torch has a quicker kernel for a text's beginning
        keys, values = (x.repeat_interleave(shared, 1) for x in (keys, values))
        return attention(q, keys, values, is_causal=True, scale=scale).transpose(1, 2).flatten(2)
    slots, own = torch.arange(used), positions[:, None, :, None]
    seen = slots <= own
    if how.window:
        seen = seen & (slots > own - how.window)
    if not how.cap:
        y = attention(q, keys, values, attn_mask=seen, scale=scale, enable_gqa=True)
        return y.transpose(1, 2).flatten(2)
    keys, values = (x.repeat_interleave(shared, 1) for x in (keys, values))
    scores = how.cap * torch.tanh(q @ keys.transpose(-1, -2) * (scale / how.cap))
    return (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values).transpose(1, 2).flatten(2)


def _written(cache: Tensor, new: Tensor, positions: Tensor) -> Tensor:
    """The cache [B, G, C, ...] with new [B, G, T, ...] at its positions."""
    index = positions[:, None].expand(*new.shape[:3])
    index = index[..., None].expand_as(new) if new.ndim == 4 else index
    return cache.scatter(2, index, new)


def _exact(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, position: Tensor, tables: Tables, how: _How
) -> tuple[Tensor, Tensor, Tensor]:
    positions = _positions(position, q.shape[1], keys.shape[2])
    heads, k_new, v_new = _heads(q, k, v, keys.shape[3], positions, tables, how)
    keys, values = _written(keys, k_new, positions), _written(values, v_new, positions)
    return _attended(heads, keys, values, positions, how), keys, values


@torch.library.custom_op("slmc::cached_attention", mutates_args=())
def cached_attention(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, position: Tensor, cos: Tensor | None,
    sin: Tensor | None, heads: int, window: int, rotary: int, theta: float, rotate: float, scale: float, cap: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Causal attention of new tokens over themselves and all tokens before, which the caches hold.

        y[t, h] = sum_s softmax_s(scale q[t, h] k[s, g]) v[s, g],    s <= t,    g = h / (H / G)

    Args:
        q: [B, T, H d]; k, v: [B, T, G d] with G groups of keys that H / G heads share (arXiv 2305.13245).
        keys, values: of the tokens before, in slots 0 .. position - 1; [B, G, C, d].
        position: how many tokens came before, int64 [B, 1].
        cos, sin: of the new tokens' angles, [B, T, r / 2]; without them angles are position * theta^(-2i/r).
        heads: H.
        window: tokens that a token sees, itself among them: t - s < window (arXiv 2004.05150); 0 for all before it.
        rotary: r, how many channels of a head turn, its first ones; 0 for all.
        theta, rotate: with rotate 1 queries and keys are turned by rotary positions; with 0 they are not.
        scale: of scores; 0 for 1 / sqrt(d).
        cap: c bends scores to c tanh(score / c) (arXiv 2408.00118, section 2.2); 0 does not.

    Returns:
        y [B, T, H d], and the caches with the new tokens in slots position .. position + T - 1.

    Raises:
        SlmcError: more than C tokens in all.
    """
    how = _How(heads, window, rotary, theta, rotate, scale, cap)
    y, keys, values = _exact(q, k, v, keys, values, position, (cos, sin), how)
    return y.contiguous(), keys, values


outputs_like(cached_attention, "q", "keys", "values")


def _context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.how = _How(*inputs[8:])
    ctx.save_for_backward(*inputs[:8])


def _gradient(ctx: Any, grad: Tensor, *_caches: Tensor) -> tuple[Any, ...]:
    # The caches are carried between windows as constants: no gradient flows through them.
    q, k, v, keys, values, position, *tables = ctx.saved_tensors
    with torch.enable_grad():
        fresh = [x.detach().requires_grad_() for x in (q, k, v)]
        y, _, _ = _exact(fresh[0], fresh[1], fresh[2], keys, values, position, (tables[0], tables[1]), ctx.how)
    return *torch.autograd.grad(y, fresh, grad), *(None,) * 12


cached_attention.register_autograd(_gradient, setup_context=_context)


@torch.library.custom_op("slmc::cached_attention_half", mutates_args=())
def cached_attention_half(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, position: Tensor, cos: Tensor | None,
    sin: Tensor | None, heads: int, window: int, rotary: int, theta: float, rotate: float, scale: float, cap: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`cached_attention` whose caches are float16; new tokens are rounded before they are attended to."""
    how = _How(heads, window, rotary, theta, rotate, scale, cap)
    positions = _positions(position, q.shape[1], keys.shape[2])
    query, k_new, v_new = _heads(q, k, v, keys.shape[3], positions, (cos, sin), how)
    keys, values = _written(keys, k_new.half(), positions), _written(values, v_new.half(), positions)
    used = int(positions.max()) + 1
    y = _attended(query, keys[:, :, :used].float(), values[:, :, :used].float(), positions, how)
    return y.contiguous(), keys, values


outputs_like(cached_attention_half, "q", "keys", "values")


def hadamard_block(width: int) -> int:
    """Channels of a head that are best mixed before they are rounded: the largest power of two that divides its width,
    but not more than 256."""
    return min(width & -width, LARGEST_BLOCK)


def _mixed(x: Tensor, block: int) -> Tensor:
    """x [..., d] times the Hadamard matrix of Sylvester's order, `block` channels at a time; with 0 x itself.

    Applied twice it is x * block.
    """
    length, y = 1, x
    while length < block:
        first, second = y.reshape(*y.shape[:-1], -1, 2, length).unbind(-2)
        y = torch.stack((first + second, first - second), -2).flatten(-3)
        length *= 2
    return y


def quantized_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int8 [B, G, T, d] and scales float32 [B, G, T]: x = scale * code, the largest |code| being 127."""
    scales = x.abs().amax(-1).clamp_min(SMALLEST_SCALE) / 127
    return torch.round(x / scales[..., None]).to(torch.int8), scales


@torch.library.custom_op("slmc::cached_attention_int8", mutates_args=())
def cached_attention_int8(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, key_scales: Tensor, value_scales: Tensor,
    position: Tensor, cos: Tensor | None, sin: Tensor | None, heads: int, window: int, rotary: int, hadamard: int,
    theta: float, rotate: float, scale: float, cap: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """`cached_attention` whose caches are int8 [B, G, C, d] with one scale per token and group, float32 [B, G, C].

    New tokens are rounded before they are attended to, so that a text read in one call and in pieces agrees.

    Args:
        hadamard: b, a power of two that divides d: keys and values are stored times a Hadamard matrix, b channels at a
            time, which spreads what is large in a few channels over all (arXiv 2404.00456); 0 stores them as they are.
    """
    how = _How(heads, window, rotary, theta, rotate, scale, cap)
    positions = _positions(position, q.shape[1], keys.shape[2])
    query, k_new, v_new = (_mixed(x, hadamard) for x in _heads(q, k, v, keys.shape[3], positions, (cos, sin), how))
    after, decoded, shrink = [], [], 1 / (hadamard or 1)
    used = int(positions.max()) + 1
    for cache, scales, new in ((keys, key_scales, k_new), (values, value_scales, v_new)):
        codes, fresh = quantized_rows(new)
        codes, fresh = _written(cache, codes, positions), _written(scales, fresh, positions)
        after.append((codes, fresh))
        decoded.append(codes[:, :, :used].float() * fresh[:, :, :used, None])
    y = _mixed(_attended(query * shrink, decoded[0], decoded[1], positions, how), hadamard) * shrink
    return y.contiguous(), after[0][0], after[1][0], after[0][1], after[1][1]


outputs_like(cached_attention_int8, "q", "keys", "values", "key_scales", "value_scales")
