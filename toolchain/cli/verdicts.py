"""From what a command measured to the verdict on an artifact's promises, and how it is printed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exporters.artifact.manifest import Manifest
from targets.device.evaluation import WORST_LOSS, Evaluation, predicted
from toolchain.cli.console import Console
from toolchain.delivery.promises import BROKEN_EXIT_CODE, Array, Found, Plain, Promise, broken, summary
from toolchain.model.text import Text

MOST_TOKENS = 32768
"""So many tokens at most are read, unasked, to compare a figure with the one of the same text."""


def promised_text(text: Text, manifest: Manifest, otherwise: int) -> Text:
    """The first so many tokens; more if the manifest's figure was taken of more of this text, and not of too many."""
    quality = manifest.quality
    if quality is None or quality.dataset_sha256 != text.sha256:
        return text.head(otherwise)
    if text.sentences is not None:
        ends = text.sentences.ends
        whole = ends[quality.tokens - 1] if 0 < quality.tokens <= len(ends) else len(text.ids)
    else:
        context, whole = manifest.io.context, quality.tokens + 1
        while predicted(whole, context) < quality.tokens and whole < len(text.ids):
            whole += 1
        if context and predicted(whole + 1, context) == quality.tokens:
            whole += 1  # a token that begins a context is not predicted, but was read
    return text.head(max(whole, otherwise) if whole <= MOST_TOKENS else otherwise)


def found_by(
    text: Text, own: Evaluation, stock: Evaluation | None = None, reference: tuple[Tensor, Tensor] | None = None
) -> Found:
    """What an evaluation tells of the promises.

    Args:
        stock: the beginning of the text on plain ONNX Runtime, where `own` ran with operators.
        reference: as of `found_in`.
    """
    losses, best = np.array(own.losses), np.array(own.best)
    plain = None
    if stock is not None:
        count = min(len(stock.losses), len(losses))
        plain = Plain(np.array(stock.losses)[:count], losses[:count], stock.agreement(own.best))
    found = found_in(text, torch.from_numpy(losses), torch.from_numpy(best), reference)
    return dataclasses.replace(found, plain=plain, single=own.token_by_token_top1)


def found_in(text: Text, losses: Tensor, best: Tensor, reference: tuple[Tensor, Tensor] | None = None) -> Found:
    """What the losses in nats and best tokens or classes of a text tell of the promises.

    Args:
        reference: losses and best tokens or classes of the fp32 model on the same text.
    """
    labels = text.sentences.labels if text.sentences else None
    found = Found(text.sha256, _floats(losses), None if labels is None else _floats(torch.eq(best, labels)))
    if reference is None:
        return found
    return dataclasses.replace(
        found,
        reference=_floats(reference[0]),
        reference_right=None if labels is None else _floats(torch.eq(reference[1], labels)),
        agreement=float(torch.eq(best, reference[1]).double().mean()),
    )


def _floats(values: Tensor) -> Array:
    """float64, and a loss that is no number, or infinite, the worst one."""
    found: Array = np.nan_to_num(values.double().numpy(), nan=WORST_LOSS, posinf=WORST_LOSS)
    return found


def say_verdict(console: Console, promises: Sequence[Promise]) -> int:
    """Print every promise that was compared, and why others were not; returns the exit code."""
    rows = [(p.name, p.status, p.promised, p.found, p.tolerance, p.margin or p.why) for p in promises]
    console.table("promises", ("promise", "", "promised", "found", "tolerance", "margin"), rows)
    return exit_code(promises)


def exit_code(promises: Sequence[Promise]) -> int:
    """0, or 3 where a promise is broken."""
    return BROKEN_EXIT_CODE if broken(promises) else 0


def verdict_document(promises: Sequence[Promise]) -> dict[str, Any]:
    """The verdict for --json."""
    return {
        "verdict": summary(promises),
        "broken": list(broken(promises)),
        "promises": [dataclasses.asdict(promise) for promise in promises],
    }
