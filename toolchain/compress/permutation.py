"""Permutations of a layer's input channels with which an N:M mask keeps a larger score.

An order is int64 [cols]: position p of the permuted matrix holds channel order[p] of the original. Every function
computes an order from scores [rows, cols] alone.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from toolchain.compress.masks import in_groups


def kept_score(score: Tensor, keep: int, of: int) -> float:
    """The sum of the scores that the best N:M mask keeps."""
    return float(in_groups(score, of, 0.0).topk(keep, -1).values.double().sum())


def serpentine(score: Tensor, of: int) -> Tensor:
    """Deal the channels, sorted by score, to the groups in serpentine order: each group gets one channel per quantile.

    E-Sparse's global naive shuffle (arXiv 2310.15929, section 3.3) deals sorted channels to groups. RIA's heuristic
    channel reallocation (ICLR 2024, section 3.3) reverses the direction in every other round.
    """
    cols = score.shape[1]
    ranked = score.sum(0).argsort(dim=0, descending=True, stable=True)
    groups = -(-cols // of)
    places: list[list[int]] = [[] for _ in range(groups)]
    room = [min(of, cols - g * of) for g in range(groups)]
    turn = list(range(groups))
    channels = iter(ranked.tolist())
    for _ in range(of):
        for g in turn:
            if len(places[g]) < room[g]:
                places[g].append(next(channels))
        turn.reverse()
    return torch.tensor(list(itertools.chain.from_iterable(places)), dtype=torch.int64)


def block_swaps(score: Tensor, keep: int, of: int, block: int = 256, tries: int = 2000, seed: int = 0) -> Tensor:
    """Swap random channels of different groups within a block of channels if the mask then keeps a larger score.

    This is E-Sparse's local block shuffle (section 3.3).

    Args:
        block: channels per block.
        tries: swaps tried per block.
    """
    cols = score.shape[1]
    order = torch.arange(cols)
    generator = np.random.default_rng(seed)
    for start in range(0, cols - cols % of, block // of * of):
        end = min(start + block // of * of, cols - cols % of)
        if end - start < 2 * of:
            continue
        order[start:end] = start + _swapped(score[:, start:end], keep, of, tries, generator)
    return order


def _swapped(score: Tensor, keep: int, of: int, tries: int, generator: np.random.Generator) -> Tensor:
    """The order of one block [rows, n] after `tries` random swaps; n is a multiple of `of`."""
    columns = score.t().contiguous().numpy()
    groups = len(columns) // of
    order = np.arange(len(columns)).reshape(groups, of)

    def held(members: np.ndarray) -> float:
        return float(np.partition(columns[members], of - keep, 0)[of - keep :].sum())

    now = [held(order[g]) for g in range(groups)]
    for _ in range(tries):
        a, b = generator.choice(groups, 2, replace=False)
        i, j = generator.integers(of, size=2)
        first, second = order[a].copy(), order[b].copy()
        first[i], second[j] = order[b, j], order[a, i]
        then = held(first), held(second)
        if then[0] + then[1] > now[a] + now[b]:
            order[a], order[b], now[a], now[b] = first, second, *then
    return torch.from_numpy(order.flatten())


def assigned(score: Tensor, keep: int, of: int) -> Tensor:
    """Reassign channels to groups by linear assignment, one place of the groups after another.

    For each of the `of` places the channels there are distributed over the groups so that the kept score is largest,
    given the channels at the other places (RIA, ICLR 2024, section 3.3). Starts from the serpentine order.
    """
    cols = score.shape[1]
    whole = cols - cols % of
    order = serpentine(score, of)
    columns = score.t().contiguous()
    groups = whole // of
    if groups < 2:
        return order
    places = order[:whole].view(groups, of).clone()
    for place in range(of):
        others = [k for k in range(of) if k != place]
        fixed = columns[places[:, others]]  # [groups, of - 1, rows]
        candidates = columns[places[:, place]]  # [groups, rows]
        # If v is the lowest kept score of the others, a candidate c adds max(c - v, 0).
        lowest = fixed.topk(keep, 1).values[:, -1]
        gain = torch.stack([(candidates - v).clamp_min(0).sum(1) for v in lowest])
        _, chosen = linear_sum_assignment(gain.numpy(), maximize=True)
        places[:, place] = places[torch.from_numpy(chosen), place]
    return torch.cat([places.flatten(), order[whole:]])


_SPLITS = [s for s in itertools.combinations(range(8), 4) if 0 in s]
"""The 35 ways to split eight channels into two groups of four."""


def stripes(score: Tensor, keep: int = 2, rounds: int = 20) -> Tensor:
    """Search all pairs of groups of four for the best of the 35 ways to split their eight channels.

    Every round scores all pairs and applies the best disjoint improvements, until none is left (Pool and Yu, NeurIPS
    2021, section 4). Only for M = 4. A round costs cols^2 / 32 pairs x 35 splits x rows.
    """
    cols = score.shape[1]
    whole = cols - cols % 4
    columns = score.t().contiguous()
    groups = torch.arange(whole).view(-1, 4)
    splits = torch.tensor([[*s, *(k for k in range(8) if k not in s)] for s in _SPLITS])
    for _ in range(rounds):
        moves = _stripe_moves(columns, groups, splits, keep)
        used: set[int] = set()
        for gain, a, b, members in moves:
            if gain <= 0 or a in used or b in used:
                continue
            groups[a], groups[b] = members[:4], members[4:]
            used |= {a, b}
        if not used:
            break
    return torch.cat([groups.flatten(), torch.arange(whole, cols)])


def _stripe_moves(columns: Tensor, groups: Tensor, splits: Tensor, keep: int) -> list[tuple[float, int, int, Tensor]]:
    """(gain, group, group, their eight channels in the best order) of every pair that improves, best first."""
    now = columns[groups].topk(keep, 1).values.sum((1, 2))
    moves = []
    for a in range(len(groups)):
        rest = torch.arange(a + 1, len(groups))
        if not len(rest):
            break
        eight = torch.cat([groups[a].expand(len(rest), 4), groups[rest]], 1)  # [pairs, 8]
        tried = eight[:, splits]  # [pairs, 35, 8]
        held = columns[tried.view(len(rest), -1, 2, 4)].topk(keep, 3).values.sum((2, 3, 4))
        best = held.max(1)
        gains = best.values - now[a] - now[rest]
        moves += [
            (float(gain), a, int(b), tried[i, best.indices[i]])
            for i, (gain, b) in enumerate(zip(gains, rest, strict=True))
            if gain > 1e-6 * float(now[a] + now[b])
        ]
    return sorted(moves, key=lambda move: -move[0])
