"""Cached attention against the textbook's in float64, in one call and in pieces, and at the end of its context."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from exporters.artifact.errors import SlmcError
from exporters.ops.attention import cached_attention

HEADS, GROUPS, WIDTH, LENGTH, TIME, THETA = 6, 2, 8, 13, 11, 50.0
KINDS = {"CachedAttention": ("keys", "values"), "CachedAttentionInt8": ("keys", "values", "key_scales", "value_scales")}


def inputs(time: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = {"q": HEADS, "k": GROUPS, "v": GROUPS}
    return {name: rng.normal(0, 1, (1, time, n * WIDTH)).astype(np.float32) for name, n in sizes.items()}


def empty(operator: str) -> dict[str, np.ndarray]:
    """Caches before the first token; whatever stands in them must not matter."""
    codes = np.int8 if operator.endswith("Int8") else np.float32
    caches = {name: np.full((1, GROUPS, LENGTH, WIDTH), 9, codes) for name in ("keys", "values")}
    scales = {name: np.full((1, GROUPS, LENGTH), 9, np.float32) for name in KINDS[operator][2:]}
    return caches | scales | {"position": np.array([[0]])}


def turned(x: np.ndarray) -> np.ndarray:
    """x [T, n, d] as complex numbers, each times e^(i position angle), back as reals."""
    half = WIDTH // 2
    angles = np.arange(len(x))[:, None, None] * THETA ** (-2.0 * np.arange(half) / WIDTH)
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
    return np.concatenate([z.real, z.imag], -1)


def textbook(q: np.ndarray, k: np.ndarray, v: np.ndarray, rotate: bool) -> np.ndarray:
    q, k, v = (x[0].astype(np.float64).reshape(len(x[0]), -1, WIDTH) for x in (q, k, v))
    if rotate:
        q, k = turned(q), turned(k)
    y = np.empty_like(q)
    for t in range(len(q)):
        for h in range(HEADS):
            g = h // (HEADS // GROUPS)
            weights = np.exp(k[: t + 1, g] @ q[t, h] / np.sqrt(WIDTH))
            y[t, h] = weights @ v[: t + 1, g] / weights.sum()
    return y.reshape(1, len(q), -1)


@pytest.mark.parametrize("rotate", [0.0, 1.0], ids=["plain", "rotary"])
@pytest.mark.parametrize(("operator", "tolerance"), [("CachedAttention", 3e-6), ("CachedAttentionInt8", 0.05)])
@pytest.mark.parametrize("cuts", [(), (4, 5), tuple(range(1, TIME))], ids=["whole", "chunks", "single"])
def test_against_the_textbook(reading, operator, tolerance, rotate, cuts):
    given, state, parts = inputs(TIME, 1), empty(operator), []
    for start, stop in zip((0, *cuts), (*cuts, TIME), strict=True):
        new = {name: x[:, start:stop] for name, x in given.items()}
        y, *caches = reading(operator, new | state, {"heads": HEADS, "theta": THETA, "rotate": rotate})
        state = dict(zip(KINDS[operator], caches, strict=True)) | {"position": np.array([[stop]])}
        parts.append(y)
    expected = textbook(**given, rotate=bool(rotate))
    np.testing.assert_allclose(np.concatenate(parts, 1), expected, atol=tolerance)
    assert (state["keys"][:, :, TIME:] == 9).all() and (state["values"][:, :, TIME:] == 9).all()


def test_a_full_context_is_refused(kernel_reading):
    given = inputs(3, 2) | empty("CachedAttention") | {"position": np.array([[LENGTH - 2]])}
    attributes = {"heads": HEADS, "theta": THETA, "rotate": 1.0}
    with pytest.raises(SlmcError, match=r"14 tokens do not fit into a context of 13; give --context 14 or more"):
        cached_attention(*(torch.from_numpy(x) for x in given.values()), *attributes.values())
    with pytest.raises(InvalidArgument, match="14 tokens do not fit into a context of 13"):
        kernel_reading("CachedAttention", given, attributes)


def test_gradients_reach_queries_keys_and_values():
    given = [torch.from_numpy(x).double().requires_grad_() for x in inputs(4, 3).values()]
    caches = [torch.zeros(1, GROUPS, LENGTH, WIDTH, dtype=torch.float64) for _ in range(2)]

    def of(*new: torch.Tensor) -> torch.Tensor:
        return cached_attention(*new, *caches, torch.zeros(1, 1, dtype=torch.int64), HEADS, THETA, 1.0)[0]

    torch.autograd.gradcheck(of, given, eps=1e-4, atol=1e-3)
