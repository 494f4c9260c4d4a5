"""Channel shuffling that costs nothing: inner channels in an order that lets N:M patterns keep more of a layer.

Where a layer's inputs are another layer's outputs, both take the new order, and nothing is left of it at run time.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.formats.patterns import PERIODS
from toolchain.calibration.statistics import CalibrationStatistics
from toolchain.compress.permutation import assigned, kept_score, stripes
from toolchain.model.catalog import LoadedModel
from toolchain.model.couplings import Coupling, couplings, reordered
from toolchain.model.family import LanguageModel

CHECKED_TOKENS = 48
"""Of the calibration text, on which the reordered model must say what the model says."""

LARGEST_DIFFERENCE = 1e-6
"""Between their logits in float64, beside the largest logit."""

MOST_STRIPES = 1024
"""Up to so many channels all pairs of groups are searched; the work grows with their square."""


def parse_pattern(text: str) -> tuple[int, int]:
    """N and M of a text such as 2:4.

    Raises:
        SlmcError: it is none.
    """
    match = re.fullmatch(r"([0-9]{1,2}):([0-9]{1,2})", text)
    keep, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if of not in PERIODS or not 0 < keep < of:
        allowed = ", ".join(map(str, PERIODS))
        raise SlmcError(f"--shuffle {text!r}: expected the pattern to make room for, N:M with M = {allowed}: 2:4")
    return keep, of


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """The model and the statistics in the new order. gains: by consumer, the score that N:M keeps now over that before.
    difference: largest of the logits, beside the largest logit."""

    model: LoadedModel
    statistics: CalibrationStatistics
    gains: Mapping[str, float]
    difference: float

    def text(self) -> str:
        if not self.gains:
            return "shuffle: no layer's channels have a free order"
        mean = sum(self.gains.values()) / len(self.gains)
        return (
            f"shuffle: inner channels of {len(self.gains)} layers in a new order, which keeps {mean - 1:.1%} more "
            f"of the score; the model is the same (logits differ by {self.difference:.1g} in float64)"
        )


def shuffled(model: LoadedModel, statistics: CalibrationStatistics, ids: Tensor, keep: int, of: int) -> Shuffled:
    """Free orders in which an N:M mask keeps the most of w_ij^2 H_jj, applied to model and statistics.

    Args:
        ids: token ids int64 [n], on which both models are compared.

    Raises:
        SlmcError: the reordered model says something else, which is a fault of slmc.
    """
    orders, gains = {}, {}
    for coupling in couplings(model):
        if coupling.width % of == 0 and coupling.width > of:
            score = model.weight(coupling.consumer).square() * statistics.hessians[coupling.consumer].diagonal()
            orders[coupling.consumer], gains[coupling.consumer] = _best_order(coupling, score, keep, of)
    turned = reordered(model, orders)
    difference = logit_difference(model, turned, ids[:CHECKED_TOKENS])
    if difference > LARGEST_DIFFERENCE:
        raise SlmcError(
            f"the model says something else with its channels reordered (logits differ by {difference:.1g}); this is a "
            "fault of slmc: please report it, and leave --shuffle away"
        )
    return Shuffled(turned, _reordered_statistics(model, statistics, orders), gains, difference)


def _best_order(coupling: Coupling, score: Tensor, keep: int, of: int) -> tuple[Tensor, float]:
    """Orders [groups, width] for scores [rows, cols], and what is kept with them over what was kept before."""
    rows = score.shape[0]
    # Heads that share their values have one order: their rows count together.
    apart = score.view(rows, coupling.groups, coupling.repeats, coupling.width).permute(1, 2, 0, 3)
    parts = apart.reshape(coupling.groups, -1, coupling.width)
    orders = []
    for part in parts:
        order = assigned(part, keep, of)
        if of == 4 and coupling.width <= MOST_STRIPES:
            order = order[stripes(part[:, order], keep)]
        better = kept_score(part[:, order], keep, of) > kept_score(part, keep, of)
        orders.append(order if better else torch.arange(coupling.width))
    order = torch.stack(orders)
    before, after = kept_score(score, keep, of), kept_score(score[:, coupling.inputs(order)], keep, of)
    return order, after / before if before > 0 else 1.0


def _reordered_statistics(
    model: LoadedModel, statistics: CalibrationStatistics, orders: Mapping[str, Tensor]
) -> CalibrationStatistics:
    hessians, fisher, entropies = dict(statistics.hessians), dict(statistics.fisher), dict(statistics.entropies)
    for coupling in couplings(model):
        if coupling.consumer in orders:
            order = orders[coupling.consumer]
            inputs, outputs = coupling.inputs(order), coupling.outputs(order)
            hessians[coupling.consumer] = hessians[coupling.consumer][inputs][:, inputs].contiguous()
            if coupling.consumer in entropies:
                entropies[coupling.consumer] = entropies[coupling.consumer][inputs]
            fisher |= {path: fisher[path][outputs] for path in coupling.producers}
    return dataclasses.replace(statistics, hessians=hessians, fisher=fisher, entropies=entropies)


def logit_difference(model: LoadedModel, other: LoadedModel, ids: Tensor) -> float:
    """Largest difference of logits over token ids [n] in float64, beside the largest logit.

    In float64, because the sum of a product in another order may else flip a spike.
    """
    before, after = _double_logits(model, ids), _double_logits(other, ids)
    return float((after - before).abs().max() / before.abs().max().clamp_min(1e-300))


def _double_logits(model: LoadedModel, ids: Tensor) -> Tensor:
    module = cast(LanguageModel, copy.deepcopy(model.module).double())
    state = [s.double() if s.is_floating_point() else s for s in model.forward.initial_state(1)]
    with torch.inference_mode():
        logits: Tensor = module(ids[None, : model.forward.context], state)[0]
    return logits
