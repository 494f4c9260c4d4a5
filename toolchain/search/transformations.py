"""Which transformations a model gets: those that lower the expected loss of the layers around them, at equal bytes.

Every layer is rounded to nearest in a handful of formats, and its errors weighed as feedback would leave them
(`feedback_loss`). With a price per byte that spends the budget, the layers around a group cost
sum min_format(loss + price bytes), before and after. What that cost falls by is what the loss falls by at equal bytes
(to first order, and the price is a derivative), so it is compared with the loss, of which the bytes' cost is many times
as much. All groups are independent but for the stream, which is decided by the sum over all its layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from exporters.formats.catalog import format_named
from toolchain.calibration.statistics import CalibrationStatistics
from toolchain.compress.gptq import Gptq, inverse_factor
from toolchain.compress.recipe import LayerConfig
from toolchain.files.progress import StepProgress
from toolchain.model.catalog import LoadedModel
from toolchain.model.tree import Layer
from toolchain.search.dense_screening import price as byte_price
from toolchain.search.problem import Problem
from toolchain.search.sensitivity import feedback_loss, looked_up_loss
from toolchain.transform.statistics import is_exact, rotated_statistics
from toolchain.transform.transformation import STREAM, Rotations, Transformation, possible_rotations

PROBES = 3
"""Formats per layer whose losses are estimated, spread over those around the budget's bits; and one of many bits."""

USUAL_BITS = 4.25
"""Bits per weight that transformations are judged at where no budget is given."""

MANY_BITS = 8
"""Bits per weight of the format that every layer is also tried in."""

SPREAD = 1.6
"""Probed formats take at most so many times the budget's bits, and at least their reciprocal: a guess."""

ROUNDED_WEIGHTS = 1e-5
"""Allowed difference of logits, relative to the largest: turned weights are rounded to float32."""

GAIN = 0.97
"""A transformation is taken if the loss around it falls below this share: estimates are no closer."""

Cost = tuple[tuple[float, int], ...]
"""Expected loss and bytes of a layer in every probed format."""


@dataclass(frozen=True)
class Transformed:
    """A model with its transformations, its statistics, and what was considered; statistics: None where they cannot be
    told from those before, and must be gathered again."""

    model: LoadedModel
    statistics: CalibrationStatistics | None
    considered: tuple[Transformation, ...]

    def text(self) -> str:
        """What was gained, in two lines at most."""
        taken = [t for t in self.considered if t.taken]
        stream = next((t for t in taken if t.place == STREAM), None)
        heads = [t for t in taken if t.place != STREAM]
        parts = []
        if stream:
            parts.append(f"the residual stream ({_fall(stream.before, stream.after)} around it)")
        if heads:
            fall = _fall(sum(t.before for t in heads), sum(t.after for t in heads))
            parts.append(f"the values of {len(heads)} of {self.value_heads} attention layers ({fall})")
        return "transform: rotated are " + " and ".join(parts) + "; the model computes the same"

    @property
    def value_heads(self) -> int:
        return sum(t.place != STREAM for t in self.considered)


def _fall(before: float, after: float) -> str:
    return f"expected loss {after / before - 1:+.0%}"


def transformed(
    model: LoadedModel, statistics: CalibrationStatistics, considered: Iterable[Transformation], seed: int
) -> Transformed:
    """Carry decisions out."""
    considered = tuple(considered)
    taken = possible_rotations(model, seed).of(t.place for t in considered if t.taken)
    if taken.stream is None and not taken.heads:
        return Transformed(model, statistics, considered)
    known = taken.stream is None or is_exact(model, taken.stream)
    turned = rotated_statistics(model, statistics, taken.stream, taken.heads) if known else None
    return Transformed(taken.applied(model), turned, considered)


def decide(
    problem: Problem, model: LoadedModel, statistics: CalibrationStatistics,
    progress: StepProgress = lambda done, total: None,
) -> tuple[Transformation, ...]:  # fmt: skip
    """Every transformation that the model allows, and whether it pays.

    Args:
        problem: its options are the formats that layers may get, its limit of memory the budget.
        model, statistics: before any transformation.
    """
    possible = possible_rotations(model, problem.seed)
    if possible.stream is None and not possible.heads:
        return ()
    streams = [None, possible.stream] if possible.stream else [None]
    some_heads = [(), possible.heads] if possible.heads else [()]
    ways = [Rotations(stream, heads) for stream in streams for heads in some_heads]
    known: dict[_State, Cost] = {}
    for i, rotations in enumerate(ways):
        _judge(problem, model, statistics, rotations, known)
        progress(i + 1, len(ways))
    return _decided(problem, model, possible, known)


@dataclass(frozen=True)
class _State:
    """A layer, and which rotations changed it."""

    path: str
    stream: bool
    heads: bool


def _state(path: str, rotations: Rotations) -> _State:
    in_heads = any(path in (h.group.consumer, *h.group.producers) for h in rotations.heads)
    return _State(path, rotations.stream is not None and path in rotations.stream.stream.paths, in_heads)


def _judge(
    problem: Problem, model: LoadedModel, statistics: CalibrationStatistics, rotations: Rotations,
    known: dict[_State, Cost],
) -> None:  # fmt: skip
    """Add the costs of every layer in a state that is not known yet. One changed model is in memory at a time."""
    other = rotations.applied(model)
    turned = rotated_statistics(model, statistics, rotations.stream, rotations.heads)
    usual = max((problem.options[x.path] for x in problem.tree.layers if x.kind == "linear"), key=len)
    for layer in other.tree.layers:
        state = _state(layer.path, rotations)
        if state not in known:
            configs = usual if layer.added else _probed(problem, layer, problem.options[layer.path])
            known[state] = _cost(problem, layer, other.weight(layer.path), turned, configs)


def _budget(problem: Problem) -> float:
    """Bytes that layers may take."""
    if problem.constraints.max_bytes is not None:
        return max(problem.constraints.max_bytes - problem.tree.fixed_bytes, 0)
    return sum(layer.params for layer in problem.tree.layers) * USUAL_BITS / 8


def _probed(problem: Problem, layer: Layer, configs: Sequence[LayerConfig]) -> list[LayerConfig]:
    """Options of a layer that are near the budget's bits, and the one nearest to MANY_BITS.

    A model may have a single matrix that carries everything: a search gives it many bits, whatever the budget.
    """
    wanted = _budget(problem) / sum(x.params for x in problem.tree.layers) * layer.params
    apart = {c: abs(math.log(problem.layer_bytes(layer, c) / max(wanted, 1))) for c in configs}
    near = sorted((c for c in configs if apart[c] <= math.log(SPREAD)), key=lambda c: problem.layer_bytes(layer, c))
    count = min(PROBES, len(near))
    spread = [near[i * (len(near) - 1) // max(count - 1, 1)] for i in range(count)]
    many = min(configs, key=lambda c: abs(problem.layer_bytes(layer, c) - layer.params * MANY_BITS / 8))
    return list(dict.fromkeys([*(spread or [min(configs, key=apart.__getitem__)]), many]))


def _cost(
    problem: Problem, layer: Layer, weight: Tensor, statistics: CalibrationStatistics, configs: Sequence[LayerConfig]
) -> Cost:
    importance = None
    if layer.kind == "linear":
        factor = inverse_factor(statistics.hessians[layer.path], Gptq.damping)
        importance = factor.diagonal().square().reciprocal()
    found = []
    for config in configs:
        fmt = format_named(config.format)
        error = torch.from_numpy(fmt.decode(fmt.encode(weight.numpy()))) - weight
        loss = looked_up_loss(layer, error, statistics)
        if importance is not None:
            loss += feedback_loss(error, importance, statistics.fisher[layer.path])
        found.append((loss, problem.layer_bytes(layer, config)))
    return tuple(found)


def _decided(
    problem: Problem, model: LoadedModel, possible: Rotations, known: Mapping[_State, Cost]
) -> tuple[Transformation, ...]:
    plain = [known[_State(layer.path, False, False)] for layer in model.tree.layers]
    price = byte_price(plain, _budget(problem))

    def total(paths: Iterable[str], rotations: Rotations) -> tuple[float, float]:
        """What these layers cost, and the loss therein."""
        costs = (known[_state(path, rotations)] for path in paths)
        chosen = [min((loss + price * size, loss) for loss, size in cost) for cost in costs]
        return sum(cost for cost, _ in chosen), sum(loss for _, loss in chosen)

    ways = {}
    for stream in (None, possible.stream) if possible.stream else (None,):
        heads = []
        for head in possible.heads:
            around = (head.group.consumer, *head.group.producers)
            before, after = (total(around, Rotations(stream, own)) for own in ((), (head,)))
            heads.append(_compared(head.group.consumer, before, after[0]))
        ways[stream is not None] = tuple(heads)
    if possible.stream is None:
        return ways[False]
    paths = possible.stream.stream.paths
    chosen = [possible.of(t.place for t in ways[turned] if t.taken).heads for turned in (False, True)]
    before = total((p for p in paths if p != possible.stream.added), Rotations(None, chosen[0]))
    after = total(paths, Rotations(possible.stream, chosen[1]))
    whole = _compared(STREAM, before, after[0])
    return (whole, *ways[whole.taken])


def _compared(place: str, before: tuple[float, float], after: float) -> Transformation:
    """before: cost, and the loss therein; after: cost."""
    cost, loss = before
    left = max(loss + after - cost, 0.0)
    return Transformation(place, loss, left, left < GAIN * loss)
