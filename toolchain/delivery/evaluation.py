"""An artifact evaluated on a text: what is read, on which target, and what that tells of the manifest's promises."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import Manifest
from targets.device.evaluation import WORST_LOSS, Evaluation, EvaluationRequest, predicted
from toolchain.delivery.execution import ExecutionTarget
from toolchain.delivery.promises import Array, Found, Plain
from toolchain.files.shipped import SHIPPED_TEXTS
from toolchain.model.catalog import LoadedModel, load_model
from toolchain.model.family import ModelOptions
from toolchain.model.text import Text, read_judged, read_text
from toolchain.model.text_rules import artifact_tokenizer

TEXT_TOKENS, STOCK_TOKENS, SINGLE_TOKENS = 8192, 2048, 256
"""Tokens that are read for quality, on plain ONNX Runtime, and one by one."""

MOST_TOKENS = 32768
"""So many tokens at most are read, unasked, to compare a figure with the one of the same text."""


def artifact_text(artifact: Path, manifest: Manifest, data: Path | None, vocabulary: int, field: str | None) -> Text:
    """A text, the shipped one if none is given, as an artifact's tokenizer splits it and its context cuts it; for a
    classifier labelled sentences."""
    tokenizer = artifact_tokenizer(artifact, manifest, vocabulary)
    if manifest.io.classes:
        return read_judged(data, tokenizer, manifest.io.classes.labels, manifest.io.context, "--data", field)
    return read_text(data or SHIPPED_TEXTS / "evaluation.txt", tokenizer, manifest.io.context, field)


def reference_model(path: Path, tokenizer: Path | None, artifact: Path, manifest: Manifest) -> LoadedModel:
    """The model that an artifact was made from.

    Raises:
        SlmcError: it is another one, or none.
    """
    model = load_model(path, tokenizer, ModelOptions(manifest.io.context, family=manifest.source.family))
    if model.sha256 != manifest.source.sha256:
        raise SlmcError(f"{path}: not the model that {artifact} was made from (SHA-256 differs)")
    return model


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


def evaluation_request(text: Text, single_tokens: int, *, native: bool, threads: int) -> EvaluationRequest:
    """What a device is asked to read; so many of the tokens also one by one."""
    tokens, sentences = tuple(text.ids.tolist()), text.sentences
    ends = () if sentences is None else sentences.ends
    labels = () if sentences is None or sentences.labels is None else tuple(sentences.labels.tolist())
    return EvaluationRequest(
        tokens=tokens,
        single_tokens=min(single_tokens, len(tokens)),
        native=native,
        threads=threads,
        ends=ends,
        labels=labels,
    )


def evaluate_artifact(
    target: ExecutionTarget, text: Text, *, threads: int, native: bool
) -> tuple[Evaluation, Evaluation | None]:
    """The text as the artifact reads it, and its beginning on plain ONNX Runtime; None if the first ran on that."""
    own = target.evaluate(evaluation_request(text, SINGLE_TOKENS, native=native, threads=threads))
    short = evaluation_request(text.head(STOCK_TOKENS), 0, native=False, threads=threads)
    return own, target.evaluate(short) if own.native_library else None


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
