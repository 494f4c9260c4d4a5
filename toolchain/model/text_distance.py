"""How far two texts are apart: what is calibrated on one and judged on another is only as good as they are alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextDistance:
    """Jensen-Shannon divergences of token frequencies, in bits from 0 (alike) to 1 (no token in common).

    between: of the calibration and the evaluation text. within: of two parts of the calibration text that are as long:
    what chance and a change of subject make of one and the same text.
    """

    between: float
    within: float

    def text(self) -> str:
        """One line for the console and the report."""
        return (
            f"calibration and evaluation text are {self.between:.2f} bits apart in their token frequencies, two parts "
            f"of the calibration text {self.within:.2f}"
        )


def text_distance(calibration: Tensor, evaluation: Tensor, vocabulary: int) -> TextDistance:
    """Compare two texts of token ids int64 [n]. Parts of equal length are compared, since short texts differ more."""
    count = min(len(calibration) // 2, len(evaluation))
    first, last = calibration[:count], calibration[len(calibration) - count :]
    return TextDistance(
        between=divergence(first, evaluation[:count], vocabulary), within=divergence(first, last, vocabulary)
    )


def divergence(first: Tensor, second: Tensor, vocabulary: int) -> float:
    """The Jensen-Shannon divergence of two texts' token frequencies, in bits (Lin, IEEE Trans. IT 37(1), 1991)."""
    p, q = (torch.bincount(ids, minlength=vocabulary).double() / max(1, len(ids)) for ids in (first, second))
    return float(_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2)


def _entropy(p: Tensor) -> Tensor:
    return -(p * torch.where(p > 0, p, 1.0).log2()).sum()
