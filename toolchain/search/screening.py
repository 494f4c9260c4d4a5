"""Screening of sparse options: a cheap estimate decides which are worth a pass over the Hessian."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporters.formats.catalog import family_of
from exporters.formats.families import DENSE, SPARSE
from toolchain.compress.recipe import LayerConfig
from toolchain.files.progress import StepProgress
from toolchain.model.tree import Layer
from toolchain.search.problem import Evaluator, Problem

MARGIN = 1.4
"""Factor by which estimates of different families may be wrong relative to each other: a guess."""

Costs = Mapping[LayerConfig, tuple[int, float]]
"""Bytes and estimated loss of a layer's options."""


@dataclass(frozen=True)
class Screening:
    """Pairs of a layer and a sparse format: how many there were, and how many were never compressed.

    least_kurtosis, largest_kurtosis: of the layers' weights; 3 is that of a normal distribution.
    """

    considered: int
    skipped: int
    least_kurtosis: float
    largest_kurtosis: float

    def text(self) -> str:
        return (
            f"{self.skipped} of {self.considered} pairs of a layer and a sparse format were not compressed: their "
            f"estimated loss is more than {MARGIN:g} times what the layer's other options give at as many bytes; "
            f"kurtosis of the layers' weights {self.least_kurtosis:.1f} to {self.largest_kurtosis:.1f} (3: normal)"
        )


def screened(
    problem: Problem, evaluator: Evaluator, progress: StepProgress = lambda done, total: None
) -> tuple[Problem, Screening | None]:
    """The problem without the sparse options that cannot pay; None where there are none.

    Dense options stay. So does the most promising format of every family, so that each family is evaluated at least
    once.
    """
    layers = [x for x in problem.tree.layers if sparse_options(problem.options[x.path])]
    if not layers:
        return problem, None
    costs: dict[str, Costs] = {}
    for layer in layers:
        costs[layer.path] = _costs(problem, layer, evaluator)
        progress(len(costs), len(layers))
    stay = set(_representatives(list(costs.values())))
    options = dict(problem.options)
    for path, own in costs.items():
        paying = {c for c, (size, loss) in own.items() if loss <= MARGIN * hull_at(list(own.values()), size)}
        dense = {c for c in own if family_of(c.format) == DENSE}
        options[path] = tuple(c for c in own if c in dense or c in paying or c.format in stay)
    considered = sum(len(sparse_options(problem.options[x.path])) for x in layers)
    kept = sum(len(sparse_options(options[x.path])) for x in layers)
    kurtosis = [evaluator.kurtosis(layer.path) for layer in layers]
    found = Screening(considered, considered - kept, min(kurtosis), max(kurtosis))
    return dataclasses.replace(problem, options=options), found


def sparse_options(options: Sequence[LayerConfig]) -> list[LayerConfig]:
    """The sparse options of a layer that screening may remove; none if the layer has only one option."""
    return [c for c in options if family_of(c.format) != DENSE] if len(options) > 1 else []


def _costs(problem: Problem, layer: Layer, evaluator: Evaluator) -> Costs:
    return {c: (problem.layer_bytes(layer, c), evaluator.estimate(layer.path, c)) for c in problem.options[layer.path]}


def hull_at(points: Sequence[tuple[int, float]], size: int) -> float:
    """The loss at `size` bytes of the lower convex hull of (bytes, loss); at its ends, of the nearest point.

    Several layers together reach the hull: apart from rounding, no division of a budget uses a point above it.
    """
    hull: list[tuple[int, float]] = []
    for point in sorted(set(points)):
        if hull and point[1] >= hull[-1][1]:
            continue
        while len(hull) > 1 and _above(hull[-1], hull[-2], point):
            hull.pop()
        hull.append(point)
    before = [p for p in hull if p[0] <= size] or hull[:1]
    after = [p for p in hull if p[0] >= size] or hull[-1:]
    (low, loss), (high, less) = before[-1], after[0]
    return loss if low >= high else loss + (less - loss) * (size - low) / (high - low)


def _above(middle: tuple[int, float], left: tuple[int, float], right: tuple[int, float]) -> bool:
    """Whether the middle point lies on or above the line between the others."""
    share = (middle[0] - left[0]) / (right[0] - left[0])
    return middle[1] >= left[1] + share * (right[1] - left[1])


def _representatives(costs: Sequence[Costs]) -> list[str]:
    """For every family the format with the least ratio of loss to that of the dense hulls at equal bytes."""
    names = dict.fromkeys(c.format for own in costs for c in own if family_of(c.format) != DENSE)
    excess = {name: _excess(costs, name) for name in names}
    families = {f: [n for n in names if family_of(n) == f] for f in SPARSE}
    return [min(own, key=excess.__getitem__) for own in families.values() if own]


def _excess(costs: Sequence[Costs], name: str) -> float:
    """Estimated loss in a format over that of dense formats in as many bytes, summed over the layers that have it."""
    loss = beside = 0.0
    for own in costs:
        dense = [cost for c, cost in own.items() if family_of(c.format) == DENSE]
        for config, (size, lost) in own.items():
            if config.format == name and dense:
                loss, beside = loss + lost, beside + hull_at(dense, size)
    return loss / beside if beside > 0 else float("inf")
