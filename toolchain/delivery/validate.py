"""What an artifact is worth on ONNX Runtime: parity with torch, quality against fp32, speed and memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from exporters.manifest import Constraint, Io, Measured, Parity, Quality
from targets.cpu import named_cpu
from targets.measure import measure
from targets.measurement import Measurement, MeasureRequest, chunk_for, fitting_lengths, pieces, to_measured
from targets.native import serving_library
from targets.session import Session, open_session
from toolchain.evidence.quality import CHUNK, Reference, bits_per_byte, stream_logits
from toolchain.model.family import LanguageModel
from toolchain.model.text import Text

PARITY_LOGITS = 2**22
"""Parity compares about this many logits: 2,048 tokens of a vocabulary of 2,048."""


def artifact_session(folder: Path, io: Io, *, native: bool = True, threads: int = 1) -> Session:
    """An artifact's model, opened with the operator library that serves this machine if there is one."""
    library = serving_library(folder) if native else None
    return open_session(folder / "model.onnx", io, native=library, threads=threads)


def session_logits(session: Session, ids: Tensor, chunk: int = CHUNK) -> Iterator[tuple[int, Tensor]]:
    """(position, logits [t, V]) over token ids [n], as toolchain.evidence.quality.stream_logits gives them."""
    context = session.io.context
    session.reset()
    for start, end in pieces(len(ids), context, chunk):
        if context and start % context == 0:
            session.reset()
        yield start, torch.from_numpy(session.run(ids[None, start:end].numpy())[0])


def parity(session: Session, compressed: LanguageModel, ids: Tensor) -> Parity:
    """The artifact beside torch with the same stored weights, over the first tokens of a text."""
    count = int(min(len(ids), max(64, PARITY_LOGITS // session.vocabulary)))
    reference = Reference(compressed, ids[:count])
    worst = 0.0
    chunks = list(session_logits(session, ids[:count]))
    for (_, logits), (_, expected) in zip(chunks, stream_logits(compressed, ids[:count]), strict=True):
        worst = max(worst, float((expected - logits).abs().max()))
    score = reference.score(chunks)
    return Parity(worst, score.top1_agreement, 1 + score.relative_drop, count)


def token_by_token_agreement(session: Session, ids: Tensor) -> float:
    """Share of positions where reading one token at a time gives the same best token as one call."""
    session.reset()
    whole = session.run(ids[None].numpy())[0].argmax(-1)
    session.reset()
    single = np.array([session.step(int(token)).argmax() for token in ids])
    return float((whole == single).mean())


def quality(session: Session, reference: Reference, text: Text) -> Quality:
    """The artifact's quality on a text, beside the fp32 model's."""
    score = reference.score(session_logits(session, text.ids))
    upper = math.expm1(math.log1p(score.relative_drop) + 1.645 * score.standard_error)
    return Quality(
        metric="perplexity",
        dataset=text.name,
        dataset_sha256=text.sha256,
        tokens=score.tokens,
        reference=score.reference,
        compressed=score.perplexity,
        relative_drop=score.relative_drop,
        relative_drop_upper=upper,
        bits_per_byte=bits_per_byte(score.perplexity, score.tokens, text.n_bytes),
        bits_per_byte_reference=bits_per_byte(score.reference, score.tokens, text.n_bytes),
        kl_mean=score.kl_mean,
        top1_agreement=score.top1_agreement,
    )


def measurement(folder: Path, io: Io, text: Text, vocabulary: int, *, threads: int, native: bool = True) -> Measurement:
    """Speed and memory of an artifact in a clean child process, reading a real text."""
    tokens = tuple(int(t) for t in text.ids[:1024])
    lengths = fitting_lengths(MeasureRequest.prompt_tokens, MeasureRequest.generate_tokens, io.context)
    request = MeasureRequest(
        *lengths, threads=threads, native=native, tokens=tokens, chunk_tokens=chunk_for(vocabulary)
    )
    return measure(folder, io, request)


def measured(result: Measurement, target: str, weight_bytes_per_token: int) -> Measured:
    """The manifest's section; the target's own bandwidth figure stands in where none could be measured."""
    return to_measured(result, target, weight_bytes_per_token, named_cpu(target).bandwidth_gbs)


def constraint(name: str, limit: float | None, actual: float, unit: str) -> list[Constraint]:
    """One constraint and whether it is met, or nothing where there is no limit."""
    return [] if limit is None else [Constraint(name, limit, actual, unit, actual <= limit)]
