"""Steps of a fused node that are done strip by strip: large enough for several strips and tasks, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.ops.signatures import FUSED
from exporters.ops.steps import STEPS

SILU = "Sigmoid i0\nMul v0 i0\nMul v1 i1\n"
CASES = {
    "gate and up": (SILU + "out v2", ("y",)),
    "a value of the middle leaves": (SILU + "Add v2 i0\nout v3 v1", ("sum", "silu")),
    "a value of the middle is read later": (SILU + "RmsNorm v2 i2 epsilon=0x1p-10\nAdd v3 v1\nout v4", ("late",)),
    "vectors and numbers": ("Mul i2 i0\nAdd v0 i3\nSquaredRelu v1\nMul v2 i3\nout v3", ("plain",)),
}


def expected(x: np.ndarray, up: np.ndarray, vector: np.ndarray, number: float) -> dict[str, np.ndarray]:
    silu = x / (1 + np.exp(-x))
    y = silu * up
    normed = y / np.sqrt(np.square(y).mean(-1, keepdims=True) + 2.0**-10) * vector
    plain = np.square(np.maximum(x * vector + number, 0)) * number
    return {"y": y, "sum": y + x, "silu": silu, "late": normed + silu, "plain": plain}


@pytest.mark.parametrize("shape", [(1, 71, 500), (71, 500), (1, 1, 5000), (1, 5000, 1), (1, 3, 2049)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_by_hand(reading, name, shape):
    text, outputs = CASES[name]
    rng = np.random.default_rng(3)
    x, up = (rng.normal(0, 1, shape).astype(np.float32) for _ in range(2))
    vector, number = rng.normal(0, 1, shape[-1:]).astype(np.float32), np.array(0.5, np.float32)
    given = {"x": x, "up": up, "vector": vector, "number": number}
    found = reading(FUSED, given, {STEPS: text})
    truth = expected(x.astype(np.float64), up.astype(np.float64), vector.astype(np.float64), 0.5)
    for y, output in zip(found, outputs, strict=True):
        np.testing.assert_allclose(y, truth[output], rtol=2e-6, atol=2e-6)
