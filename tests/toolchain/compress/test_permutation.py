"""Channel orders: exact on small cases, never worse than where they start, and always orders."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from toolchain.compress.permutation import assigned, block_swaps, kept_score, serpentine, stripes

ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "serpentine": lambda s: serpentine(s, 4),
    "block_swaps": lambda s: block_swaps(s, 2, 4, block=16, tries=200),
    "assigned": lambda s: assigned(s, 2, 4),
    "stripes": lambda s: stripes(s),
}


def clustered(rows: int, cols: int, seed: int = 0) -> Tensor:
    """Scores whose large channels are neighbours, as E-Sparse observes them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, cols, generator=generator) * torch.linspace(4, 0.1, cols)


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("cols", [1, 4, 7, 8, 30, 64])
def test_every_result_is_an_order(name: str, cols: int) -> None:
    assert sorted(ORDERS[name](clustered(5, cols)).tolist()) == list(range(cols))


@pytest.mark.parametrize("name", ORDERS)
def test_clustered_channels_keep_more(name: str) -> None:
    score = clustered(8, 64)
    assert kept_score(score[:, ORDERS[name](score)], 2, 4) > 1.05 * kept_score(score, 2, 4)


def test_serpentine_by_hand() -> None:
    """Channel sums 8 7 6 5 4 3 2 1 over two groups: dealt 0 1 | 3 2 | 4 5 | 7 6 to groups A B | B A | A B | B A."""
    order = serpentine(torch.tensor([[8.0, 7, 6, 5, 4, 3, 2, 1]]), 4)
    assert order.tolist() == [0, 3, 4, 7, 1, 2, 5, 6]


def best_of_all(score: Tensor) -> float:
    """The most that any split of eight channels into two groups of four keeps, by trying all."""
    best = 0.0
    for first in itertools.combinations(range(8), 4):
        second = [k for k in range(8) if k not in first]
        best = max(best, kept_score(score[:, [*first, *second]], 2, 4))
    return best


@pytest.mark.parametrize("seed", range(5))
def test_stripes_are_exact_for_two_groups(seed: int) -> None:
    score = torch.rand(6, 8, generator=torch.Generator().manual_seed(seed))
    assert kept_score(score[:, stripes(score)], 2, 4) == pytest.approx(best_of_all(score), rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_many_swaps_are_a_local_optimum(seed: int) -> None:
    """After enough tries no swap of two channels of different groups keeps more."""
    score = torch.rand(6, 8, generator=torch.Generator().manual_seed(seed))
    order = block_swaps(score, 2, 4, tries=2000)
    kept = kept_score(score[:, order], 2, 4)
    for i, j in itertools.product(range(4), range(4, 8)):
        swapped = order.clone()
        swapped[i], swapped[j] = order[j], order[i]
        assert kept_score(score[:, swapped], 2, 4) <= kept * (1 + 1e-6)


def test_swaps_stay_within_their_block() -> None:
    order = block_swaps(clustered(4, 32), 2, 4, block=8, tries=300)
    for start in range(0, 32, 8):
        assert sorted(order[start : start + 8].tolist()) == list(range(start, start + 8))


def test_same_seed_same_order() -> None:
    score = clustered(4, 32)
    assert block_swaps(score, 2, 4, seed=3).tolist() == block_swaps(score, 2, 4, seed=3).tolist()
