"""Validation of an artifact on ONNX Runtime: parity with torch, quality relative to fp32, speed and memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from exporters.artifact.manifest import (
    ACCURACY,
    PERPLEXITY,
    Constraint,
    Io,
    Manifest,
    Measured,
    Parity,
    Quality,
)
from exporters.artifact.runtimes import SLMC_RUN, STOCK
from exporters.states import StateSpec
from targets.cpus.spec import Cpu
from targets.device.measurement import Measurement, to_measured
from targets.device.native import platform_name, serving_library
from targets.device.session import Session, open_session
from targets.runtime.program import serving_program
from targets.runtime.session import ServedSession
from toolchain.model.family import LanguageModel
from toolchain.model.text import Reading, Text, first
from toolchain.quality.accuracy import AnyReference, reference_for
from toolchain.quality.reference import CHUNK, Score, bits_per_byte, stream_logits

PARITY_LOGITS = 2**22
"""Parity compares about this many logits: 2,048 tokens of a vocabulary of 2,048."""


def artifact_session(folder: Path, io: Io, *, native: bool = True, own: bool = False, threads: int = 1) -> Session:
    """An artifact's model on ONNX Runtime, opened with the operator library that serves this machine if there is one.

    own: whether that may be the artifact's own, which is code of whoever made it.
    """
    library = serving_library(folder, own=own) if native else None
    return open_session(folder / "model.onnx", io, native=library, threads=threads)


def runtime_session(
    folder: Path, manifest: Manifest, runtime: str, *, own: bool = False, threads: int = 1
) -> Session | ServedSession:
    """An artifact's model on one of exporters.artifact.runtimes; own: as of `artifact_session`, also of slmc-run."""
    if runtime == SLMC_RUN:
        program = serving_program(folder, manifest, platform_name(), own=own)
        return ServedSession(program.resolve(), folder, manifest.io, threads)
    return artifact_session(folder, manifest.io, native=runtime != STOCK, own=own, threads=threads)


class SessionModel:
    """A session as a language model for `stream_logits`; its state stays in the session."""

    def __init__(self, session: Session | ServedSession) -> None:
        self._session = session

    @property
    def context(self) -> int | None:
        return self._session.io.context

    def state_specs(self) -> list[StateSpec]:
        return []

    def initial_state(self, batch: int = 1) -> list[Tensor]:
        self._session.reset()
        return []

    def __call__(self, tokens: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        if len(tokens) == 1:
            return torch.from_numpy(self._session.run(tokens.numpy())), []
        rows = [self(row[None], self.initial_state())[0] for row in tokens]  # sentences, each from an empty state
        return torch.cat(rows), []


def session_logits(session: Session | ServedSession, ids: Reading, chunk: int = CHUNK) -> Iterator[tuple[int, Tensor]]:
    """(position, logits [t, V]) over token ids [n], as toolchain.quality.reference.stream_logits gives them."""
    return stream_logits(SessionModel(session), ids, chunk)


def parity(session: Session, compressed: LanguageModel, ids: Reading) -> Parity:
    """Compare the artifact with torch and the same stored weights, over the first tokens of a text."""
    read = first(ids, int(min(len(ids), max(64, PARITY_LOGITS // session.vocabulary))))
    reference = reference_for(compressed, read)
    worst = 0.0
    chunks = list(session_logits(session, read))
    for (_, logits), (_, expected) in zip(chunks, stream_logits(compressed, read), strict=True):
        worst = max(worst, float((expected - logits).abs().max()))
    score = reference.score(chunks)
    return Parity(worst, score.top1_agreement, score.perplexity / score.reference, len(read))


def quality(session: Session, reference: AnyReference, text: Text) -> Quality:
    """The artifact's quality on a text, compared with the fp32 model's."""
    score = reference.score(session_logits(session, text.reading))
    if score.accuracy is not None and score.reference_accuracy is not None:
        drop, upper = accuracy_drop(score)
        metric, before, after, bits, bits_before = ACCURACY, score.reference_accuracy, score.accuracy, 0.0, 0.0
    else:
        drop = score.relative_drop
        upper = math.expm1(math.log1p(drop) + 1.645 * score.standard_error)
        metric, before, after = PERPLEXITY, score.reference, score.perplexity
        bits, bits_before = (bits_per_byte(value, score.tokens, text.n_bytes) for value in (after, before))
    return Quality(
        metric=metric, dataset=text.name, dataset_sha256=text.sha256, tokens=score.tokens,
        reference=before, compressed=after, relative_drop=drop, relative_drop_upper=upper,
        bits_per_byte=bits, bits_per_byte_reference=bits_before,
        kl_mean=score.kl_mean, top1_agreement=score.top1_agreement,
    )  # fmt: skip


def accuracy_drop(score: Score) -> tuple[float, float]:
    """By what share of the fp32 model's the accuracy falls, and the one-sided 95 % bound of that."""
    assert score.accuracy is not None and score.reference_accuracy is not None and score.accuracy_error is not None
    whole = max(score.reference_accuracy, 1 / score.tokens)
    drop = (score.reference_accuracy - score.accuracy) / whole
    return drop, drop + 1.645 * score.accuracy_error / whole


def measured(result: Measurement, cpu: Cpu, weight_bytes_per_token: int) -> Measured:
    """The manifest's section; the target's own bandwidth figure stands in where none could be measured."""
    return to_measured(result, cpu.name, weight_bytes_per_token, cpu.bandwidth_gbs)


def constraint(name: str, limit: float | None, actual: float, unit: str) -> list[Constraint]:
    """One constraint and whether it is met, or nothing where there is no limit."""
    return [] if limit is None else [Constraint(name=name, limit=limit, actual=actual, unit=unit, met=actual <= limit)]
