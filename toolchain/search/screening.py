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
from toolchain.search.dense_screening import dense, is_large, worth_compressing
from toolchain.search.problem import Evaluator, Problem

MARGIN = 1.4
"""Factor by which estimates of different families may be wrong relative to each other: a guess."""

Costs = Mapping[LayerConfig, tuple[int, float]]
"""Bytes and estimated loss of a layer's options."""


@dataclass(frozen=True)
class Screening:
    """Pairs of a layer and a format: how many there were, and how many were never compressed; sparse ones, dense ones.

    least_kurtosis, largest_kurtosis: of the layers' weights; 3 is that of a normal distribution. left, compressed:
    pairs of a large model after screening, and those that a division of its memory limit led to.
    """

    considered: int
    skipped: int
    least_kurtosis: float
    largest_kurtosis: float
    dense_considered: int = 0
    dense_skipped: int = 0
    left: int = 0
    compressed: int = 0

    def after(self, before: Problem, narrowed: Problem) -> Screening:
        """The same with what narrowing left of its options; `self` where it left all."""
        if narrowed is before:
            return self
        left, compressed = (
            sum(len(own) for own in some.options.values() if len(own) > 1) for some in (before, narrowed)
        )
        return dataclasses.replace(self, left=left, compressed=compressed)

    def text(self) -> str:
        parts = [self._sparse()] if self.considered else []
        if self.dense_considered:
            parts.append(
                f"{self.dense_skipped} of {self.dense_considered} pairs of a layer and a dense format were not "
                "compressed: by their estimated loss no division of the memory limit would choose them"
            )
        if self.left:
            parts.append(
                f"{self.compressed} of the {self.left} that were left were compressed: a sample of every format, and "
                "what divisions of the memory limit chose"
            )
        return "; ".join(parts)

    def _sparse(self) -> str:
        return (
            f"{self.skipped} of {self.considered} pairs of a layer and a sparse format were not compressed: their "
            f"estimated loss is more than {MARGIN:g} times what the layer's other options give at as many bytes; "
            f"kurtosis of the layers' weights {self.least_kurtosis:.1f} to {self.largest_kurtosis:.1f} (3: normal)"
        )


def screened(
    problem: Problem, evaluator: Evaluator, progress: StepProgress = lambda done, total: None
) -> tuple[Problem, Screening | None]:
    """The problem without the options that cannot pay; None where none is in question.

    Dense options stay, unless the model is large. So does the most promising sparse format of every family, so that
    each is evaluated at least once.
    """
    large = is_large(problem)
    layers = [
        x
        for x in problem.tree.layers
        if sparse_options(problem.options[x.path]) or (large and len(problem.options[x.path]) > 1)
    ]
    if not layers:
        return problem, None
    costs: dict[str, Costs] = {}
    evaluator.expect(estimates=[(layer.path, config) for layer in layers for config in problem.options[layer.path]])
    for layer in layers:
        costs[layer.path] = _costs(problem, layer, evaluator)
        progress(len(costs), len(layers))
    stay = set(_representatives(list(costs.values())))
    options = dict(problem.options)
    plain = {path: {c: own[c] for c in dense(tuple(own)) or own} for path, own in costs.items()}
    chosen = worth_compressing(plain, _room(problem, costs)) if large else {}
    for path, own in costs.items():
        paying = {c for c, (size, loss) in own.items() if loss <= MARGIN * hull_at(list(own.values()), size)}
        staying = chosen[path] if large else set(dense(tuple(own)))
        sparse = sparse_options(tuple(own))
        options[path] = tuple(c for c in own if c in staying or (c in sparse and (c in paying or c.format in stay)))
    before, after = ([o[x.path] for x in layers] for o in (problem.options, options))
    considered, kept = (sum(map(len, map(sparse_options, some))) for some in (before, after))
    kurtosis = [evaluator.kurtosis(layer.path) for layer in layers] if considered else [0.0]
    found = Screening(considered, considered - kept, min(kurtosis), max(kurtosis))
    if large:
        total, left = (sum(len(dense(own)) for own in some) for some in (before, after))
        found = dataclasses.replace(found, dense_considered=total, dense_skipped=total - left)
    return dataclasses.replace(problem, options=options), found


def _room(problem: Problem, costs: Mapping[str, Costs]) -> float:
    """Bytes that the limit leaves for the layers of `costs`."""
    others = (layer for layer in problem.tree.layers if layer.path not in costs)
    taken = sum(min(problem.layer_bytes(layer, c) for c in problem.options[layer.path]) for layer in others)
    return (problem.constraints.max_bytes or 0) - problem.tree.fixed_bytes - taken


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
