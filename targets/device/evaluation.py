"""What a model predicts for given token ids, without torch: the same figures on every machine that runs it.

    loss_t = log sum_v exp(logits_t[v]) - logits_t[ids_(t+1)]      perplexity = exp(mean loss)

Run as a program it is the child process for another machine: a job as JSON on stdin, one JSON document on stdout.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from exporters.artifact.errors import SlmcError
from exporters.artifact.manifest import Io
from exporters.artifact.parsing import parse
from exporters.artifact.runtimes import ONNXRUNTIME
from targets.device.measurement import chunk_for, pieces
from targets.device.native import isa_name, serving_library
from targets.device.session import Session, open_session

EVALUATION_TIMEOUT_S = 600.0
"""A process that reads a text is ended after this time."""

WORST_LOSS = 700.0
"""Nats per token that a broken model is said to lose: exp of it is still a number."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What to read: token ids [n], n of 2 or more; the first `single_tokens` of them, one context at most, also one by
    one.

    artifact_native: whether the operators may be the artifact's own, which are code of whoever made it.
    ends, labels: for a classifier, where each sentence ends among the tokens, and the number of its class.
    """

    tokens: tuple[int, ...]
    single_tokens: int = 0
    native: bool = True
    threads: int = 1
    ends: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    artifact_native: bool = False


@dataclass(frozen=True)
class EvaluationJob:
    artifact: str
    graph: str
    io: Io
    request: EvaluationRequest


@dataclass(frozen=True)
class Evaluation:
    """What was predicted: losses [n - 1] in nats, best tokens [n]. With a context, no loss of what begins a new one.

    token_by_token_top1: share of tokens where reading one by one gives the same best token; None if nobody asked.
    accuracy: of a classifier, whose losses and best classes are those of sentences, one of each.
    """

    losses: tuple[float, ...]
    best: tuple[int, ...]
    token_by_token_top1: float | None
    native_library: str | None
    isa: str
    ort_version: str
    context: int | None = None
    accuracy: float | None = None
    runtime: str = ONNXRUNTIME

    @property
    def perplexity(self) -> float:
        return math.exp(min(sum(self.losses) / len(self.losses), WORST_LOSS))

    def agreement(self, best: tuple[int, ...]) -> float:
        """Share of equal best tokens, over the length of the shorter list."""
        pairs = list(zip(self.best, best, strict=False))
        return sum(a == b for a, b in pairs) / len(pairs)

    def head(self, tokens: int) -> Evaluation:
        """The same over the first so many tokens, or sentences; without the accuracy."""
        if self.accuracy is not None:
            return dataclasses.replace(self, losses=self.losses[:tokens], best=self.best[:tokens], accuracy=None)
        return dataclasses.replace(self, losses=self.losses[: predicted(tokens, self.context)], best=self.best[:tokens])


def evaluate(artifact: Path, graph: str, io: Io, request: EvaluationRequest) -> Evaluation:
    """Open an artifact and read the text.

    Raises:
        SlmcError, NotAvailable: as `open_session`; fewer than two tokens.
    """
    if io.classes and not len(request.ends) == len(request.labels) > 0:
        raise SlmcError(f"{len(request.ends)} sentences with {len(request.labels)} labels; a classifier needs both")
    if len(request.tokens) < 2:
        raise SlmcError(f"{len(request.tokens)} tokens predict nothing; give 2 or more")
    native = serving_library(artifact, own=request.artifact_native) if request.native else None
    session = open_session(artifact / graph, io, native=native, threads=request.threads)
    ids = np.array(request.tokens, np.int64)
    labels = np.array(request.labels, np.int64)
    single: npt.NDArray[np.int64] | None
    if io.classes:
        texts = np.split(ids, request.ends[:-1])
        losses, best = read_sentences(session, texts, labels)
        single = None if io.classes.whole_texts else classes_one_by_one(session, texts, request.single_tokens)
    else:
        losses, best = read_text(session, ids)
        count = min(request.single_tokens, io.context or request.single_tokens)
        single = one_by_one(session, ids[:count]) if count else None
    return Evaluation(
        losses=tuple(losses.tolist()),
        best=tuple(best.tolist()),
        token_by_token_top1=None if single is None else float((single == best[: len(single)]).mean()),
        native_library=None if native is None else str(native),
        isa=isa_name(native),
        ort_version=ort.__version__,
        context=io.context,
        accuracy=float((best == labels).mean()) if io.classes else None,
    )


def read_text(session: Session, ids: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Losses and best tokens of an `Evaluation` for ids [n], in chunks that keep the logits small."""
    context, losses, best = session.io.context, [], []
    session.reset()
    for start, end in pieces(len(ids), context, chunk_for(session.vocabulary)):
        if context and start % context == 0:
            session.reset()
        logits = session.run(ids[None, start:end])[0].astype(np.float64)
        best.append(logits.argmax(-1))
        following = ids[start + 1 : end if context and end % context == 0 else end + 1]
        losses.append(_losses(logits[: len(following)], following))
    return np.concatenate(losses), np.concatenate(best)


def read_sentences(
    session: Session, texts: list[npt.NDArray[np.int64]], labels: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Losses of the labels [n] and best classes of n sentences, each read from an empty state."""
    scores = np.empty((len(texts), session.width))
    for i, text in enumerate(texts):
        session.reset()
        scores[i] = session.run(text[None])[0, 0]
    return _losses(scores, labels), scores.argmax(-1)


def classes_one_by_one(
    session: Session, texts: list[npt.NDArray[np.int64]], tokens: int
) -> npt.NDArray[np.int64] | None:
    """Best classes of the first sentences, of so many tokens together, read token by token; None for no tokens."""
    best, left = [], tokens
    for text in texts:
        left -= len(text)
        if left < 0:
            break
        best.append(one_by_one(session, text)[-1])
    return np.array(best) if best else None


def predicted(tokens: int, context: int | None) -> int:
    """How many of so many tokens are predicted: all but the first of every context."""
    return tokens - math.ceil(tokens / context) if context else max(tokens - 1, 0)


def _losses(logits: npt.NDArray[np.float64], ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Nats of ids [t] under logits [t, V]; a loss that is no number, or infinite, is the worst one."""
    top = logits.max(-1, keepdims=True, initial=-np.inf)
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.log(np.exp(logits - top).sum(-1)) + top[:, 0]
        losses = total - np.take_along_axis(logits, ids[:, None], -1)[:, 0]
    bounded: npt.NDArray[np.float64] = np.minimum(np.nan_to_num(losses, nan=WORST_LOSS, posinf=WORST_LOSS), WORST_LOSS)
    return bounded


def one_by_one(session: Session, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Best tokens [n] when ids [n] are read one at a time, as in generation."""
    session.reset()
    return np.array([session.step(int(token)).argmax() for token in ids])


def answer(job_json: str) -> dict[str, Any]:
    """The document for stdout: {'evaluation': ...} or {'error': {kind, text}}."""
    try:
        job: EvaluationJob = parse(EvaluationJob, json.loads(job_json), "job")
        return {"evaluation": dataclasses.asdict(evaluate(Path(job.artifact), job.graph, job.io, job.request))}
    except SlmcError as error:
        return {"error": {"kind": type(error).__name__, "text": str(error)}}


def main() -> None:
    json.dump(answer(sys.stdin.read()), sys.stdout)


if __name__ == "__main__":
    main()
