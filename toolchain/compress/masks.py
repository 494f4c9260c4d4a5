"""N:M masks: the weights with the highest scores in every group of M inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError

SHARED_ROWS = 16
"""Rows that share one pattern in a format such as 4:8x16."""


def in_groups(score: Tensor, of: int, rest: float) -> Tensor:
    """[rows, cols] as [rows, groups, of], padded with `rest`."""
    rows, cols = score.shape
    groups = -(-cols // of)
    return torch.nn.functional.pad(score, (0, groups * of - cols), value=rest).view(rows, groups, of)


def best_mask(score: Tensor, keep: int, of: int, shared_rows: int = 1) -> Tensor:
    """True for the `keep` highest scores of every `of` neighbouring inputs. The first of equal scores is kept.

    Args:
        score: [rows, cols], at least 0.
        shared_rows: number of consecutive rows that share one pattern, chosen by the sums of their scores.

    Returns:
        bool [rows, cols]. A last group of fewer than `of` inputs keeps at most `keep` of them.

    Raises:
        SlmcError: keep is not between 1 and of - 1, or a score is negative or not finite.
    """
    if not 1 <= keep < of:
        raise SlmcError(f"pattern {keep}:{of}: between 1 and {of - 1} of {of} weights can be kept")
    if not (torch.isfinite(score).all() and (score >= 0).all()):
        raise SlmcError("scores must be finite and not negative; look for overflowing weights or calibration inputs")
    rows, cols = score.shape
    grouped = per_pattern(in_groups(score, of, -1.0), shared_rows)
    order = grouped.sort(dim=-1, descending=True, stable=True).indices[..., :keep]
    mask = torch.zeros(grouped.shape, dtype=torch.bool).scatter_(-1, order, True)
    flat = mask.flatten(1)[:, :cols]
    return flat.repeat_interleave(shared_rows, 0)[:rows]


def per_pattern(grouped: Tensor, shared_rows: int) -> Tensor:
    """Scores [rows, groups, of] summed over the rows of one pattern: [ceil(rows / shared_rows), groups, of]."""
    rows = grouped.shape[0]
    blocks = -(-rows // shared_rows)
    padded = torch.nn.functional.pad(grouped, (0, 0, 0, 0, 0, blocks * shared_rows - rows))
    return padded.view(blocks, shared_rows, *grouped.shape[1:]).sum(1)
