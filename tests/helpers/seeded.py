"""Weights that depend on a seed and on their names alone, for models whose released code was run elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

SPREAD = {"decay_raw": 1.5, "b_beta": 1.0, "neuron.w": 0.7, "attn_gate": 0.5, "prior_weight": 0.7}
"""Standard deviations of vectors that are no norms, by the end of their names."""

AROUND = {"norm.weight": 1.0, "norm.gain": 1.0, "v_th": 0.4, "k_k": 0.7, "ln_x.weight": 1.0}
"""What other vectors lie around, where it is not 0."""


def seeded_tensors(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """A float32 tensor for every name: matrices with 1.2 / sqrt(columns), tables with 1, vectors around 1 or 0."""
    tensors = {}
    for number, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        values = np.random.RandomState([seed, number]).standard_normal(shape)
        spread = next((s for end, s in SPREAD.items() if name.endswith(end)), 0.2)
        if len(shape) == 2:
            values *= 1.0 if "embed" in name else 1.2 / shape[1] ** 0.5
        else:
            values = spread * values + next((a for end, a in AROUND.items() if name.endswith(end)), 0.0)
        tensors[name] = torch.from_numpy(np.asarray(values, np.float32))
    return tensors
