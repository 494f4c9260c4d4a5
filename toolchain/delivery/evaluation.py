"""An artifact evaluated on a text: what is read, on which target, and what that tells of the manifest's promises."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import Manifest
from exporters.artifact.runtimes import ONNXRUNTIME, RUNTIMES, STOCK
from targets.device.evaluation import WORST_LOSS, Evaluation, EvaluationRequest, predicted
from toolchain.delivery.execution import ExecutionTarget
from toolchain.delivery.promises import Array, Beside, Found
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


def evaluation_request(text: Text, single_tokens: int, *, threads: int) -> EvaluationRequest:
    """What a device is asked to read; so many of the tokens also one by one."""
    tokens, sentences = tuple(text.ids.tolist()), text.sentences
    ends = () if sentences is None else sentences.ends
    labels = () if sentences is None or sentences.labels is None else tuple(sentences.labels.tolist())
    return EvaluationRequest(
        tokens=tokens,
        single_tokens=min(single_tokens, len(tokens)),
        threads=threads,
        ends=ends,
        labels=labels,
    )


@dataclass(frozen=True)
class Readings:
    """A text as an artifact reads it, and the beginning of it on the other runtimes.

    others: runtime -> its reading; without those that could not be had, for which `missing` says why.
    """

    own: Evaluation
    others: Mapping[str, Evaluation]
    missing: Mapping[str, str]

    @property
    def stock(self) -> Evaluation | None:
        """On plain ONNX Runtime; None if `own` ran on that."""
        return self.others.get(STOCK)


def evaluate_artifact(target: ExecutionTarget, text: Text, *, threads: int) -> Readings:
    """The text as the artifact reads it on the target's runtime, and its beginning on the others.

    A plain ONNX Runtime that was asked for is the subject itself: it is compared with nothing.
    """
    own = target.evaluate(evaluation_request(text, SINGLE_TOKENS, threads=threads))
    short = evaluation_request(text.head(STOCK_TOKENS), 0, threads=threads)
    others: dict[str, Evaluation] = {}
    missing: dict[str, str] = {}
    for runtime in RUNTIMES if target.runtime != STOCK else ():
        if runtime == own.runtime or (runtime == STOCK and own.runtime == ONNXRUNTIME and not own.native_library):
            continue
        try:
            found = target.beside(runtime, short)
        except SlmcError as error:
            found, missing[runtime] = None, str(error)
        if found is not None:
            others[runtime] = found
    return Readings(own, others, missing)


def found_by(text: Text, readings: Readings, reference: tuple[Tensor, Tensor] | None = None) -> Found:
    """What an evaluation tells of the promises.

    Args:
        reference: as of `found_in`.
    """
    own = readings.own
    found = found_in(text, torch.from_numpy(np.array(own.losses)), torch.from_numpy(np.array(own.best)), reference)
    judge = own if own.runtime == ONNXRUNTIME else readings.others.get(ONNXRUNTIME)
    ways = {} if judge is None else {
        runtime: _beside(judge, reading)
        for runtime, reading in {**readings.others, own.runtime: own}.items() if runtime != ONNXRUNTIME
    }  # fmt: skip
    singles = min(SINGLE_TOKENS, len(text.ids), own.context or SINGLE_TOKENS)
    return dataclasses.replace(
        found, ways=ways, missing=readings.missing, single=own.token_by_token_top1, single_tokens=singles
    )


def _beside(judge: Evaluation, other: Evaluation) -> Beside:
    """One runtime's reading of the beginning beside that of ONNX Runtime with operators."""
    count = min(len(judge.losses), len(other.losses))
    losses, operators = (np.array(reading.losses)[:count] for reading in (other, judge))
    return Beside(losses, operators, other.agreement(judge.best))


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
