"""Lif and Wkv by their definitions in every reading: one call, chunks and single steps."""

from __future__ import annotations

import numpy as np
import pytest

LIF = {"tau": 2.0, "threshold": 1.0, "reset": 0.0}


def lif_inputs(T: int, C: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([T, C])
    return {
        "current": rng.normal(0.5, 2, (1, T, C)).astype(np.float32),
        "membrane": rng.normal(0, 1, (1, C)).astype("f4"),
    }


def wkv_inputs(T: int, C: int, started: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([T, C, started])
    state = {
        "numerator": rng.normal(0, 1, (1, C)) if started else np.zeros((1, C)),
        "denominator": rng.uniform(0.5, 2, (1, C)) if started else np.zeros((1, C)),
        "exponent": rng.normal(0, 2, (1, C)) if started else np.full((1, C), -1e38),
    }
    inputs = {
        "decay": -np.exp(rng.normal(-1, 1, C)), "first": rng.normal(0, 1, C), "key": rng.normal(0, 3, (1, T, C)),
        "value": rng.normal(0, 1, (1, T, C)), **state,
    }  # fmt: skip
    return {name: array.astype(np.float32) for name, array in inputs.items()}


def lif_by_definition(inputs: dict[str, np.ndarray], tau: float, threshold: float, reset: float) -> list[np.ndarray]:
    v, spikes = inputs["membrane"].astype(np.float64), []
    for x in inputs["current"].astype(np.float64).swapaxes(0, 1):
        u = v + (x - (v - reset)) / tau
        spikes.append(u >= threshold)
        v = np.where(u >= threshold, reset, u)
    return [np.stack(spikes, 1), v]


def wkv_by_definition(inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y and the two sums without scaling, straight from the sums in the docstring of `wkv`, in extended precision."""
    w, u, k, v, a, b, m = (array.astype(np.longdouble) for array in inputs.values())
    a, b, ys = a * np.exp(m), b * np.exp(m), []
    for t in range(k.shape[1]):
        weights = [np.exp((t - 1 - s) * w + k[:, s]) for s in range(t)] + [np.exp(u + k[:, t])]
        above = a * np.exp(t * w) + sum(weight * v[:, s] for s, weight in enumerate(weights))
        ys.append(above / (b * np.exp(t * w) + sum(weights)))
    T = k.shape[1]
    last = [np.exp((T - 1 - s) * w + k[:, s]) for s in range(T)]
    return (
        np.stack(ys, 1),
        a * np.exp(T * w) + sum(weight * v[:, s] for s, weight in enumerate(last)),
        b * np.exp(T * w) + sum(last),
    )


@pytest.mark.parametrize("C", [1, 5, 64])
@pytest.mark.parametrize("T", [1, 23])
@pytest.mark.parametrize(("tau", "threshold", "reset"), [(2, 1, 0), (3, 0.5, -0.25)])
def test_lif(reading, T, C, tau, threshold, reset):
    inputs = lif_inputs(T, C)
    spikes, after = reading("Lif", inputs, {"tau": float(tau), "threshold": float(threshold), "reset": float(reset)})
    expected_spikes, expected_after = lif_by_definition(inputs, tau, threshold, reset)
    np.testing.assert_array_equal(spikes, expected_spikes)
    np.testing.assert_allclose(after, expected_after, atol=2e-6)
    assert C * T < 20 or 0 < spikes.mean() < 1


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(("T", "C"), [(1, 1), (23, 5), (40, 64)])
def test_wkv(reading, T, C, started):
    inputs = wkv_inputs(T, C, started)
    y, a, b, m = reading("Wkv", inputs, {})
    expected_y, expected_a, expected_b = wkv_by_definition(inputs)
    np.testing.assert_allclose(y, expected_y.astype(np.float64), atol=3e-5)
    scale = np.exp(m.astype(np.longdouble))
    np.testing.assert_allclose((b * scale / expected_b).astype(np.float64), 1, atol=3e-5)
    np.testing.assert_allclose((a * scale / expected_b).astype(np.float64), (expected_a / expected_b), atol=3e-5)


@pytest.mark.parametrize("cuts", [(3,), (1, 2, 3, 4, 5, 6)], ids=["two chunks", "steps"])
def test_chunks_are_the_whole(reading, cuts):
    """Exactly: every step does the same arithmetic, however many come in one call."""
    for operator, inputs, attributes, moving, states in [
        ("Lif", lif_inputs(7, 20), LIF, ["current"], ["membrane"]),
        ("Wkv", wkv_inputs(7, 20, True), {}, ["key", "value"], ["numerator", "denominator", "exponent"]),
    ]:
        whole = reading(operator, inputs, attributes)
        parts, state = [], {name: inputs[name] for name in states}
        for start, stop in zip((0, *cuts), (*cuts, 7), strict=True):
            chunk = {name: inputs[name][:, start:stop] for name in moving}
            y, *after = reading(operator, {**inputs, **state, **chunk}, attributes)
            parts.append(y)
            state = dict(zip(states, after, strict=True))
        np.testing.assert_array_equal(np.concatenate(parts, 1), whole[0])
        for name, after in zip(states, whole[1:], strict=True):
            np.testing.assert_array_equal(state[name], after)
