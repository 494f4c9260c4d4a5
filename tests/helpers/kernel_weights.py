"""Random matrices of the integer formats as numpy alone packs them, for tests of the kernels."""

from __future__ import annotations

import numpy as np
from one_node import session

from exporters.formats.tiles import fills_words, tiled_tensors

CODE_BITS = {1: (1, 0), 2: (2, 0), 3: (2, 1), 4: (4, 0), 5: (4, 1), 6: (4, 2), 8: (8, 0)}
BITS = tuple(CODE_BITS)
LINEAR_INPUTS = ["x", "codes", "scales", "high", "zeros"]
EMBEDDING_INPUTS = ["tokens", *LINEAR_INPUTS[1:]]


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes [..., n] as bytes [..., n * bits / 8], least significant bits first."""
    spread = (codes[..., None] >> np.arange(bits)) & 1
    return np.packbits(spread.reshape(*codes.shape[:-1], -1).astype(np.uint8), axis=-1, bitorder="little")


class Weights:
    """A random quantised matrix: its packed tensors as stored, and w as float64."""

    def __init__(self, rng, N: int, K: int, bits: int, group: int, zeros: bool):
        groups = -(-K // group)
        codes = rng.integers(0, 2**bits, (N, groups, group))
        low, high = CODE_BITS[bits]
        self.attributes = {"K": K, "N": N, "bits": bits, "group": group}
        self.packed = {"codes": pack(codes & (2**low - 1), low)}
        self.packed["scales"] = (rng.uniform(0.01, 1, (N, groups)) * rng.choice([-1, 1], (N, groups))).astype(
            np.float16
        )
        if high:
            self.packed["high"] = pack(codes >> low, high)
        offsets = np.full((N, groups), 2 ** (bits - 1))
        if zeros:
            offsets = rng.integers(0, 2**bits, (N, groups))
            self.packed["zeros"] = offsets.astype(np.uint8)
        grouped = (codes - offsets[..., None]) * self.packed["scales"].astype(np.float64)[..., None]
        self.w = grouped.reshape(N, -1)[:, :K]


def qlinear(x: np.ndarray, weights: Weights, tile: int = 0, threads: int = 1, **attributes) -> np.ndarray:
    """With the packed tensors in tiles, if asked for and if their groups fill whole words."""
    whole = tile and fills_words(weights.attributes["group"], weights.attributes["bits"])
    attributes |= weights.attributes | {"tile": tile if whole else 0}
    packed = tiled_tensors(weights.packed) if attributes["tile"] else weights.packed
    model = session("QLinear", {"x": x}, packed, LINEAR_INPUTS, threads=threads, **attributes)
    return model.run(None, {"x": x})[0]
