"""Distillation objectives: the fp32 model's distribution, optionally with its most probable tokens as labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Objective:
    """KL(p_fp32 || p) - best_tokens * log p[argmax p_fp32], mean over tokens, in nats.

    The divergence alone is knowledge distillation. Hinton et al. (arXiv 1503.02531, section 2) add labels to it; ours
    are the fp32 model's most probable tokens, not those of the text.
    """

    best_tokens: float = 0.0

    def __call__(self, wanted: Tensor, given: Tensor) -> Tensor:
        """wanted, given: logits [rows, time, vocabulary] of the fp32 model and of the compressed model."""
        loss = divergence(wanted, given)
        if self.best_tokens:
            best = functional.cross_entropy(given.flatten(0, 1), wanted.argmax(-1).flatten())
            loss = loss + self.best_tokens * best
        return loss


def divergence(wanted: Tensor, given: Tensor) -> Tensor:
    """Mean KL(softmax(wanted) || softmax(given)) over tokens, in nats; logits [rows, time, vocabulary]."""
    return functional.kl_div(
        torch.log_softmax(given, -1).flatten(0, 1), torch.log_softmax(wanted, -1).flatten(0, 1),
        log_target=True, reduction="batchmean",
    )  # fmt: skip


DISTRIBUTION = Objective()

OBJECTIVES = {"distribution": DISTRIBUTION, "best-token": Objective(0.2)}
"""By the values of --tune-for."""
