"""What a model carries from token to token, as its graph takes it in and gives it out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StateSpec:
    """One carried value: its shape without the batch, what every entry starts with, NumPy's name of its type.

    in_place: a call may write its result over what it has read, so that nothing is copied.
    """

    name: str
    shape: tuple[int, ...]
    fill: float = 0.0
    dtype: str = "float32"
    in_place: bool = False

    @property
    def values(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.values * np.dtype(self.dtype).itemsize
