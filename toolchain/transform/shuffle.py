"""Channel permutation without run-time cost: N:M patterns keep more if inner channels are in a better order.

If the inputs of a layer are the outputs of another layer, both are stored in the new order.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.formats.patterns import PERIODS
from toolchain.calibration.statistics import CalibrationStatistics
from toolchain.compress.permutation import assigned, kept_score, stripes
from toolchain.model.catalog import LoadedModel
from toolchain.model.permutation_groups import PermutationGroup, permutation_groups, reordered
from toolchain.transform.check import checked_difference

LARGEST_DIFFERENCE = 1e-6
"""Allowed difference of their logits in float64, relative to the largest logit."""

MOST_STRIPES = 1024
"""All pairs of groups are searched up to this number of channels. The cost grows with its square."""


def parse_pattern(text: str) -> tuple[int, int]:
    """N and M of a pattern such as 2:4.

    Raises:
        SlmcError: the text is no such pattern.
    """
    match = re.fullmatch(r"([0-9]{1,2}):([0-9]{1,2})", text)
    keep, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if of not in PERIODS or not 0 < keep < of:
        allowed = ", ".join(map(str, PERIODS))
        raise SlmcError(f"--shuffle {text!r}: expected the pattern to make room for, N:M with M = {allowed}: 2:4")
    return keep, of


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """The model and its statistics in the new channel order.

    Attributes:
        gains: by path of the layer that reads the channels, kept score after / before.
        difference: largest difference of logits, relative to the largest logit.
    """

    model: LoadedModel
    statistics: CalibrationStatistics
    gains: Mapping[str, float]
    difference: float

    def text(self) -> str:
        """One line for the console."""
        if not self.gains:
            return "shuffle: no layer's channels have a free order"
        mean = sum(self.gains.values()) / len(self.gains)
        return (
            f"shuffle: inner channels of {len(self.gains)} layers in a new order, which keeps {mean - 1:.1%} more "
            f"of the score; the model is the same (logits differ by {self.difference:.1g} in float64)"
        )


def shuffled(model: LoadedModel, statistics: CalibrationStatistics, ids: Tensor, keep: int, of: int) -> Shuffled:
    """Permute the inner channels of a model so that an N:M mask keeps more of w_ij^2 H_jj.

    Args:
        statistics: of the model; permuted in the same way.
        ids: token ids int64 [n], on which both models are compared.
        keep: N.
        of: M.

    Raises:
        SlmcError: the permuted model computes something else, which is a fault of slmc.
    """
    orders, gains = {}, {}
    for group in permutation_groups(model):
        if group.width % of == 0 and group.width > of:
            score = model.weight(group.consumer).square() * statistics.hessians[group.consumer].diagonal()
            orders[group.consumer], gains[group.consumer] = _best_order(group, score, keep, of)
    turned = reordered(model, orders)
    difference = checked_difference(model, turned, ids, LARGEST_DIFFERENCE, "--shuffle")
    return Shuffled(turned, _reordered_statistics(model, statistics, orders), gains, difference)


def _best_order(group: PermutationGroup, score: Tensor, keep: int, of: int) -> tuple[Tensor, float]:
    """Orders [groups, width] for scores [rows, cols], and the kept score after / before."""
    rows = score.shape[0]
    # Heads that share their values share one order, so their rows are scored together.
    apart = score.view(rows, group.groups, group.repeats, group.width).permute(1, 2, 0, 3)
    parts = apart.reshape(group.groups, -1, group.width)
    orders = []
    for part in parts:
        order = assigned(part, keep, of)
        if of == 4 and group.width <= MOST_STRIPES:
            order = order[stripes(part[:, order], keep)]
        better = kept_score(part[:, order], keep, of) > kept_score(part, keep, of)
        orders.append(order if better else torch.arange(group.width))
    order = torch.stack(orders)
    before, after = kept_score(score, keep, of), kept_score(score[:, group.inputs(order)], keep, of)
    return order, after / before if before > 0 else 1.0


def _reordered_statistics(
    model: LoadedModel, statistics: CalibrationStatistics, orders: Mapping[str, Tensor]
) -> CalibrationStatistics:
    hessians, fisher, entropies = dict(statistics.hessians), dict(statistics.fisher), dict(statistics.entropies)
    for group in permutation_groups(model):
        if group.consumer in orders:
            order = orders[group.consumer]
            inputs, outputs = group.inputs(order), group.outputs(order)
            hessians[group.consumer] = hessians[group.consumer][inputs][:, inputs].contiguous()
            if group.consumer in entropies:
                entropies[group.consumer] = entropies[group.consumer][inputs]
            fisher |= {path: fisher[path][outputs] for path in group.producers}
    return dataclasses.replace(statistics, hessians=hessians, fisher=fisher, entropies=entropies)
