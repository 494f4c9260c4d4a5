"""Attention over the last tokens and the first ones: all readings beside a loop that keeps every token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from exporters.ops.anchored import anchored_attention

HEADS, WIDTH, TOKENS, THETA = 3, 6, 17, 50.0


def in_codes(row: np.ndarray) -> np.ndarray:
    """The nearest whole numbers of steps, of which the largest entry is 127."""
    step = np.abs(row).max() / 127
    return np.rint(row / step) * step


def by_definition(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, present: np.ndarray, anchors: int, ring: int, kept: Any
) -> np.ndarray:
    """q, k, v [T, H, d], float64: every token looks at all before it, as they are kept."""
    pair = np.arange(WIDTH // 2)

    def turned(x: np.ndarray, place: int) -> np.ndarray:
        angle = place * THETA ** (-2 * pair / WIDTH)
        z = (x[: WIDTH // 2] + 1j * x[WIDTH // 2 :]) * np.exp(1j * angle)
        return np.concatenate([z.real, z.imag])

    y = np.zeros_like(q)
    for t in range(len(q)):
        allowed = [j for j in range(t + 1) if present[j] and (j < anchors or t - j < ring)]
        for h in range(HEADS if present[t] else 0):
            own = turned(q[t, h], t)
            shares = np.exp([own @ kept(turned(k[j, h], j)) / np.sqrt(WIDTH) for j in allowed])
            y[t, h] = (shares / shares.sum()) @ [kept(v[j, h]) for j in allowed]
    return y


@pytest.mark.parametrize("pieces", [(17,), (1,) * 17, (6, 1, 10)], ids=["whole", "steps", "pieces"])
@pytest.mark.parametrize(("anchors", "ring"), [(2, 4), (0, 1), (3, 30)])
@pytest.mark.parametrize("missing", [(), (0, 7, 8)], ids=["all", "some missing"])
@pytest.mark.parametrize("kind", ["", "Int8"])
def test_over_a_text(reading, pieces, anchors, ring, missing, kind):
    rng = np.random.default_rng([anchors, ring])
    q, k, v = (rng.normal(size=(TOKENS, HEADS, WIDTH)).astype(np.float32) for _ in "qkv")
    present = np.ones(TOKENS, np.float32)
    present[list(missing)] = 0
    cache = np.zeros((1, HEADS, anchors + ring, WIDTH), np.int8 if kind else np.float32)
    state = {"keys": cache, "values": cache, "seen": np.zeros((1, anchors + ring), np.float32)}
    if kind:
        state |= {name: np.zeros((1, HEADS, anchors + ring), np.float32) for name in ("key_scales", "value_scales")}
    found, start = [], 0
    for size in pieces:
        new = {n: x[None, start : start + size].reshape(1, size, -1) for n, x in (("q", q), ("k", k), ("v", v))}
        inputs = {**new, "present": present[None, start : start + size], **state, "position": np.array([[start]])}
        y, *after = reading(f"AnchoredAttention{kind}", inputs, {"heads": HEADS, "anchors": anchors, "theta": THETA})
        state = dict(zip(state, after, strict=True))
        found.append(y[0])
        start += size
    kept = in_codes if kind else np.asarray
    expected = by_definition(*(x.astype(np.float64) for x in (q, k, v)), present, anchors, ring, kept)
    np.testing.assert_allclose(np.concatenate(found), expected.reshape(TOKENS, -1), rtol=1e-5, atol=2e-6)


def test_a_batch_and_its_gradient():
    """Texts of a batch at places of their own; the gradient beside finite differences."""
    rng = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, 5, 8, generator=rng) for _ in "qkv")
    keys, values = (torch.randn(2, 2, 4, 4, generator=rng) for _ in "kv")
    seen, present, position = torch.ones(2, 4), torch.ones(2, 5), torch.tensor([[9], [2]])

    def run(rows: slice, k: torch.Tensor) -> torch.Tensor:
        caches = (keys[rows], values[rows], seen[rows])
        how = (2, 1, 100.0)
        return anchored_attention(q[rows], k[rows], v[rows], present[rows], *caches, position[rows], *how)[0]

    both = run(slice(0, 2), k)
    torch.testing.assert_close(both, torch.cat([run(slice(0, 1), k), run(slice(1, 2), k)]))
    leaf = k.clone().requires_grad_()
    run(slice(0, 2), leaf).sum().backward()
    step = torch.zeros_like(k)
    step[1, 2, 3] = 1e-2
    change = (run(slice(0, 2), k + step).sum() - run(slice(0, 2), k - step).sum()) / 2e-2
    assert leaf.grad[1, 2, 3].item() == pytest.approx(change.item(), abs=2e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"anchors": 3}, "leave none behind"),
        ({"present": np.ones((1, 2), np.float32)}, "present"),
        ({"seen": np.ones((1, 2), np.float32)}, "seen"),
        ({"k": np.ones((1, 1, 4), np.float32)}, "k"),
        ({"position": np.array([[-1]])}, "position -1 is negative"),
        ({"heads": 0}, "heads = 0"),
        ({"anchors": -1}, "anchors = -1"),
    ],
)
def test_refused_by_the_kernel(kernel_reading, change, said):
    row, cache = np.ones((1, 1, 2), np.float32), np.ones((1, 1, 3, 2), np.float32)
    call = {
        "q": row, "k": row, "v": row, "present": np.ones((1, 1), np.float32), "keys": cache, "values": cache,
        "seen": np.ones((1, 3), np.float32), "position": np.array([[0]]), "heads": 1, "anchors": 1, "theta": 10.0,
    } | change  # fmt: skip
    inputs = {name: value for name, value in call.items() if isinstance(value, np.ndarray)}
    with pytest.raises(Exception, match=said):
        kernel_reading("AnchoredAttention", inputs, {n: v for n, v in call.items() if n not in inputs})


@pytest.mark.parametrize("name", ["key_scales", "value_scales"])
def test_scales_of_another_shape_are_refused(kernel_reading, name):
    row, cache = np.ones((1, 1, 2), np.float32), np.ones((1, 1, 3, 2), np.int8)
    scales = {"key_scales": np.ones((1, 1, 3), np.float32), "value_scales": np.ones((1, 1, 3), np.float32)}
    inputs = {
        "q": row, "k": row, "v": row, "present": np.ones((1, 1), np.float32), "keys": cache, "values": cache,
        "seen": np.ones((1, 3), np.float32), **scales, name: np.ones((1, 1, 2), np.float32),
        "position": np.array([[0]]),
    }  # fmt: skip
    with pytest.raises(Exception, match=name):
        kernel_reading("AnchoredAttentionInt8", inputs, {"heads": 1, "anchors": 1, "theta": 10.0})
