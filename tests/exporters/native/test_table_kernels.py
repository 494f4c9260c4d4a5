"""TableLinear and TableEmbedding in ONNX Runtime against plain numpy, on every instruction set of this machine."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_weights import Weights
from one_node import close, refused, session
from rounding import rounded

from exporters.formats.tiles import fills_words, tiled_tensors

INPUTS = ["x", "codes", "scales", "high", "steps"]


class TableWeights(Weights):
    """A random matrix of a table's steps."""

    def __init__(self, rng: np.random.Generator, N: int, K: int, bits: int, group: int) -> None:
        super().__init__(rng, N, K, bits, group, False)
        self.steps = np.sort(rng.choice(np.arange(-128, 128), 2**bits, replace=False)).astype(np.int8)
        scales = np.repeat(self.packed["scales"].astype(np.float64), group, 1)[:, :K]
        codes = np.rint(self.w / scales).astype(int) + 2 ** (bits - 1)
        self.w = self.steps.astype(np.float64)[codes] * scales


def product(x: np.ndarray, weights: TableWeights, tile: int, **attributes: int) -> np.ndarray:
    packed = tiled_tensors(weights.packed) if tile else weights.packed
    constants = {**packed, "steps": weights.steps}
    model = session("TableLinear", {"x": x}, constants, INPUTS, **weights.attributes, **attributes, tile=tile)
    found: np.ndarray = model.run(None, {"x": x})[0]
    return found


def test_by_hand(isa) -> None:
    """Codes 1, 15 and 0 are -7, 127 and -128 of the table; times the scale 0.5."""
    steps = np.array([-128, -7, *range(13), 127], np.int8)
    codes = np.zeros((1, 1, 16), np.uint8)
    codes[0, 0, :2] = [1 | 15 << 4, 0]
    constants = {"codes": codes, "scales": np.array([[0.5]], np.float16), "steps": steps}
    x = np.array([[2, 100, 4]], np.float32)
    model = session("TableLinear", {"x": x}, constants, INPUTS, K=3, N=1, bits=4, group=32)
    assert model.run(None, {"x": x})[0].tolist() == [[-7.0 + 127 * 50 - 128 * 2]]


@pytest.mark.parametrize("tile", [0, 16])
@pytest.mark.parametrize("activation_bits", [32, 8])
@pytest.mark.parametrize("bits", [3, 4])
def test_products(isa, bits: int, activation_bits: int, tile: int) -> None:
    rng = np.random.default_rng(bits)
    for N, K, group in [(64, 256, 32), (33, 300, 64), (48, 512, 128), (50, 130, 32), (17, 640, 256), (35, 100, 16)]:
        weights = TableWeights(rng, N, K, bits, group)
        for tokens in (1, 3, 33):
            x = rng.standard_normal((1, tokens, K)).astype(np.float32)
            seen = rounded(x, group) if activation_bits == 8 else x
            close(
                product(x, weights, tile if fills_words(group, bits) else 0, activation_bits=activation_bits),
                seen,
                weights.w,
            )


@pytest.mark.parametrize("tile", [0, 16])
@pytest.mark.parametrize("bits", [3, 4])
def test_rows(isa, bits: int, tile: int) -> None:
    weights = TableWeights(np.random.default_rng(bits), 37, 80, bits, 32)
    tokens = np.array([[36, 0, 17]])
    packed = tiled_tensors(weights.packed) if tile else weights.packed
    model = session(
        "TableEmbedding", {"tokens": tokens}, {**packed, "steps": weights.steps}, ["tokens", *INPUTS[1:]],
        **weights.attributes, tile=tile,
    )  # fmt: skip
    np.testing.assert_allclose(model.run(None, {"tokens": tokens})[0][0], weights.w[tokens[0]], rtol=1e-6)


def test_what_does_not_fit_is_refused(isa) -> None:
    weights, x = TableWeights(np.random.default_rng(0), 4, 32, 4, 32), np.ones((1, 32), np.float32)

    def made(steps: np.ndarray | None, **attributes: int) -> None:
        constants = weights.packed | ({} if steps is None else {"steps": steps})
        session("TableLinear", {"x": x}, constants, INPUTS, **weights.attributes | attributes).run(None, {"x": x})

    refused("'steps' is \\[8\\]", lambda: made(weights.steps[:8]))
    refused("bits = 5; a table is for 3 and 4", lambda: made(weights.steps, bits=5))
