"""Whether a changed model computes what the original computes."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from toolchain.model.catalog import LoadedModel
from toolchain.model.family import LanguageModel

CHECKED_TOKENS = 48
"""Tokens of the calibration text on which the changed model is compared with the original."""


def checked_difference(model: LoadedModel, other: LoadedModel, ids: Tensor, most: float, option: str) -> float:
    """The difference of two models' logits on the beginning of a text; see `logit_difference`.

    Args:
        most: the largest that is allowed.
        option: the flag that asked for the change.

    Raises:
        SlmcError: it is larger, which is a fault of slmc.
    """
    difference = logit_difference(model, other, ids[:CHECKED_TOKENS])
    if not difference <= most:
        raise SlmcError(
            f"the model computes other logits after {option} changed it (they differ by {difference:.1g}, allowed are "
            f"{most:.1g}); this is a fault of slmc: please report it, and build without {option}"
        )
    return difference


def logit_difference(model: LoadedModel, other: LoadedModel, ids: Tensor) -> float:
    """The largest difference of logits over token ids [n], relative to the largest logit.

    Computed in float64: in float32 another order of summation may flip a spike.
    """
    before, after = _double_logits(model, ids), _double_logits(other, ids)
    return float((after - before).abs().max() / before.abs().max().clamp_min(1e-300))


def _double_logits(model: LoadedModel, ids: Tensor) -> Tensor:
    module = cast(LanguageModel, copy.deepcopy(model.module).double())
    state = [s.double() if s.is_floating_point() else s for s in model.forward.initial_state(1)]
    with torch.inference_mode():
        logits: Tensor = module(ids[None, : model.forward.context], state)[0]
    return logits
