"""The calibration statistics of a rotated model, from those of the model before."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from toolchain.calibration.statistics import CalibrationStatistics
from toolchain.model.catalog import LoadedModel
from toolchain.transform.rotation import HeadRotation, StreamRotation


def rotated_statistics(
    model: LoadedModel,
    statistics: CalibrationStatistics,
    stream: StreamRotation | None,
    heads: Sequence[HeadRotation],
) -> CalibrationStatistics:
    """Hessians H' = Q^T D^-1 H D^-1 Q of what reads behind a norm with gains D, R^T H R of what reads heads.

    Exact unless a norm adds a shift. The Fisher information of a turned output is the mean over the channels that the
    rotation mixes, which is its expectation over random rotations. Entropies are of channels that are no more, so that
    turned layers have none.

    Args:
        model, statistics: before the rotation.
        stream, heads: the rotations of the model.
    """
    hessians, fisher = dict(statistics.hessians), dict(statistics.fisher)
    for head in heads:
        group = head.group
        hessians[group.consumer] = _turned(hessians[group.consumer], head.inputs)
        for path in group.producers:
            fisher[path] = fisher[path].view(group.groups, -1).mean(1).repeat_interleave(group.width)
    if stream is not None:
        _turn(model, stream, hessians, fisher)
    entropies = {p: e for p, e in statistics.entropies.items() if hessians[p] is statistics.hessians[p]}
    return dataclasses.replace(statistics, hessians=hessians, fisher=fisher, entropies=entropies)


def gains(model: LoadedModel, stream: StreamRotation) -> dict[str, Tensor]:
    """The gain of every norm of the stream, float64 [width], by its path."""
    return {r.norm: model.module.get_parameter(f"{r.norm}.weight").detach().double() for r in stream.stream.reads}


def is_exact(model: LoadedModel, stream: StreamRotation) -> bool:
    """Whether the statistics of the rotated model can be told from those before: no gain is 0, and no norm shifts."""
    if any(not bool(gain.all()) for gain in gains(model, stream).values()):
        return False
    shifts = (getattr(model.module.get_submodule(r.norm), "bias", None) for r in stream.stream.reads)
    return all(shift is None or not bool(shift.any()) for shift in shifts)


def _turn(model: LoadedModel, stream: StreamRotation, hessians: dict[str, Tensor], fisher: dict[str, Tensor]) -> None:
    q, gain_of = stream.matrix, gains(model, stream)
    for read in stream.stream.reads:
        gain = gain_of[read.norm]
        inverse = torch.where(gain == 0, 0.0, 1 / gain)[:, None] * q
        for path in read.readers:
            before = hessians[path]
            if stream.added is not None and read is stream.stream.reads[-1]:
                hessians[stream.added] = _turned(before, inverse)
                fisher[stream.added] = _into_head(model.weight(path), fisher[path])
                hessians[path] = _turned(before, q)
                continue
            hessians[path] = _turned(before, inverse)
    for path in (*stream.stream.writers, *stream.stream.tables):
        fisher[path] = fisher[path].mean().expand_as(fisher[path]).contiguous()


def _into_head(weight: Tensor, fisher: Tensor) -> Tensor:
    """Fisher information of a head's inputs: the mean over channels of sum_r F_r w_rc^2, logits being independent."""
    inputs = (weight.square() * fisher[:, None]).sum(0)
    return inputs.mean().expand_as(inputs).contiguous()


def _turned(hessian: Tensor, matrix: Tensor) -> Tensor:
    return (matrix.T @ hessian.double() @ matrix).float()
